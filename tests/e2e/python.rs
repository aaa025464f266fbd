//! Python programs of `tests/python`, with the packages that `scripts/setup-python-tools.sh` installs.

use crate::photo::repository;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Runs `tests/python/<script>` and reads what it prints as JSON.
pub(crate) fn run(script: &str, arguments: &[&str]) -> Value {
    let path = repository().join("tests/python").join(script);
    let output = python(&[generated(), &packages()], |python| python.arg(&path).args(arguments));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same with NVIDIA's tritonclient. `None`, and a reason is printed, where it could not be installed.
pub(crate) fn run_with_tritonclient(script: &str, arguments: &[&str]) -> Option<Value> {
    let packages = repository().join(".convoy/tritonclient");
    if !packages.join("VERSION").is_file() {
        skipped(&format!("tritonclient is not in {}: scripts/setup-python-tools.sh", packages.display()));
        return None;
    }
    let path = repository().join("tests/python").join(script);
    let output = python(&[&packages], |python| python.arg(&path).args(arguments));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Says why a test does not run here.
#[allow(clippy::print_stderr)]
pub(crate) fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// The client code that grpc_tools makes of the `.proto` file, as any user of it would.
fn generated() -> &'static Path {
    static GENERATED: OnceLock<TempDir> = OnceLock::new();
    let folder = GENERATED.get_or_init(|| {
        let folder = crate::fixture::data_folder();
        let protos = repository().join("proto/proto");
        let out = |kind: &str| format!("--{kind}={}", folder.path().display());
        python(&[&packages()], |python| {
            python.args(["-m", "grpc_tools.protoc", "-I"]).arg(&protos).args([
                out("python_out"),
                out("grpc_python_out"),
                "model_serving.proto".to_owned(),
            ])
        });
        folder
    });
    folder.path()
}

fn python(modules: &[&Path], arguments: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", std::env::join_paths(modules).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = arguments(&mut python).output().expect("python3 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{python:?}: {}\n{errors}", output.status);
    output
}

fn packages() -> PathBuf {
    let folder = repository().join(".convoy/python");
    let installed = folder.join("VERSION").is_file();
    assert!(
        installed,
        "{} is missing: run scripts/setup-python-tools.sh, then the tests again.",
        folder.display()
    );
    folder
}
