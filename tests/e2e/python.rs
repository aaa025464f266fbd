//! Python programs of `tests/python`, with the packages that `scripts/setup-python-tools.sh` installs.

use crate::photo::repository;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
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

/// A program that goes on until its input ends.
pub(crate) struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `tests/python/<script>`.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let path = repository().join("tests/python").join(script);
        let mut python = command(&[generated(), &packages()]);
        python.arg(&path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 is installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until it has printed so many more lines.
    pub(crate) fn wait_for_lines(&mut self, count: usize) {
        for _ in 0..count {
            self.lines.next().expect("it goes on").unwrap();
        }
    }

    /// Ends its input and gives its last line, as JSON.
    pub(crate) fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let last = self.lines.by_ref().map(Result::unwrap).last().expect("it says what it saw");
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&last).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of one that has ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `schemathesis` with `arguments`, run in `folder`, where it leaves what it notes. `None`, and a reason is printed, where
/// it could not be installed.
pub(crate) fn run_schemathesis(arguments: &[&str], folder: &Path) -> Option<Output> {
    let packages = repository().join(".convoy/schemathesis");
    if !packages.join("VERSION").is_file() {
        skipped(&format!("schemathesis is not in {}: scripts/setup-python-tools.sh", packages.display()));
        return None;
    }
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder);
    // A proxy for the outside world that the environment names is not for it.
    python.env("NO_PROXY", "*").args(["-m", "schemathesis.cli"]).args(arguments);
    Some(python.output().expect("python3 is installed"))
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
    let mut python = command(modules);
    let output = arguments(&mut python).output().expect("python3 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{python:?}: {}\n{errors}", output.status);
    output
}

fn command(modules: &[&Path]) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", std::env::join_paths(modules).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    python
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
