//! Every file of the corpus gets the verdict that is expected of it (`tests/corpus`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use sandbox::{Limits, Sandbox, SandboxConfig, Verdict};

use crate::fixtures::{photo, stretch};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

/// Name, bytes and verdicts of every file.
pub(crate) fn files() -> Vec<(String, Bytes, String)> {
    let table = fs::read_to_string(folder().join("expected.tsv")).unwrap();
    let files: Vec<_> = table
        .lines()
        .map(|line| {
            let (name, verdicts) = line.split_once('\t').unwrap();
            let bytes = fs::read(folder().join("files").join(name)).unwrap();
            (name.to_owned(), bytes.into(), verdicts.to_owned())
        })
        .collect();
    assert_eq!(files.len(), fs::read_dir(folder().join("files")).unwrap().count());
    assert!(files.len() > 200, "only {} files", files.len());
    files
}

fn with_timeout(timeout: Duration) -> Sandbox {
    let limits = Limits { timeout, ..Limits::default() };
    Sandbox::new(SandboxConfig { limits, ..SandboxConfig::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_gets_its_verdict() {
    // On a slow machine, what is quick elsewhere takes long; what takes long takes long everywhere.
    let patient = with_timeout(Duration::from_secs(600));
    let hasty = with_timeout(Duration::from_secs(1));
    let mut wrong = Vec::new();
    for (name, bytes, expected) in files() {
        let sandbox = if expected == "out_of_time" { &hasty } else { &patient };
        let answer = sandbox.tensor(bytes, stretch(300, 300), None).await;
        let verdict = Verdict::of(&answer).as_str();
        assert!(expected.split(',').count() == 1 || expected.ends_with(",out_of_time"), "{name}: {expected}");
        if !expected.split(',').any(|each| each == verdict) {
            wrong.push(format!("{name}: {verdict}, not {expected} ({:?})", answer.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    patient.tensor(photo(), stretch(300, 300), None).await.unwrap();
}

#[test]
fn the_files_are_what_the_script_writes() {
    let check = Command::new("python3").arg(folder().join("generate.py")).arg("--check").output();
    let output = match check {
        Ok(output) => output,
        Err(error) => panic!("python3 is needed, as by other tests of the repository: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
