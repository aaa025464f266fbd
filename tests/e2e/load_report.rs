//! `tests/load/report.py`, which decides whether `make load` has shown what it must.

use crate::photo::repository;
use std::process::Command;

/// Whether all checks pass for a server that was given 100 ms, and what is printed.
fn report(kept_ms: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = repository().join("tests/load/report.py");
    let output =
        Command::new("python3").arg(script).arg("write").arg(folder.path()).args(["100", kept_ms]).output();
    let output = output.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_server_that_kept_a_longer_objective_than_it_was_given_fails() {
    let kept = "passed: objective: the server kept the 100 ms that it was given\n";
    assert_eq!(report("100"), (true, kept.to_owned()));
    let (passed, text) = report("250");
    assert!(
        !passed && text.starts_with("FAILED: objective: the server kept 250 ms, longer than the 100 ms"),
        "{text}"
    );
}
