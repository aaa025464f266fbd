//! `scripts/run.sh`, which `make run` calls once all is built.

use crate::fixture::{PATIENCE, data_folder};
use crate::photo::repository;
use crate::process::binary;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The script with the binary under test, on free ports and a database in `folder`.
fn script(folder: &Path) -> Command {
    // Tests that run in the background of a shell ignore SIGINT, and what they start would too.
    let mut script = Command::new("env");
    script.arg("--default-signal=INT").arg(repository().join("scripts/run.sh"));
    for name in ["FEATURE_ADDR", "GRPC_ADDR", "HTTP_ADDR", "METRICS_ADDR", "RESULTS_ADDR", "ADMIN_ADDR"] {
        script.env(name, "127.0.0.1:0");
    }
    script
        .env("CONVOY_BIN", binary())
        .env("PROFILE_CACHE", "none")
        .env("LATENCY_SLO", "none")
        .env("RUN_LOG", folder.join("run.log"))
        .env("DB_PATH", folder.join("predictions.db"))
        .env_remove("ONCE");
    script
}

/// A script that is told to end when the value drops: killed, it would leave the services behind.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("TERM");
        }
    }
}

/// The address of a face in what the script prints.
fn address_of(face: &str, printed: &str) -> String {
    let line = printed.lines().find(|line| line.trim_start().starts_with(face));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.unwrap_or_else(|| panic!("no {face} in {printed}")).trim_start_matches("http://").to_owned()
}

#[test]
fn once_prints_the_table_and_ends_everything() {
    let folder = data_folder();
    let output = script(folder.path()).env("ONCE", "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}{errors}");
    let least = |class: &str| {
        let row = printed.lines().find(|line| line.trim_start().starts_with(class));
        row.and_then(|row| row.split_whitespace().nth(1)).map(|score| score.parse::<f64>().unwrap())
    };
    assert!(least("bus ").is_some_and(|score| score >= 0.9), "{printed}");
    assert!(least("car ").is_some_and(|score| score >= 0.7), "{printed}");
    let log = std::fs::read_to_string(folder.path().join("run.log")).unwrap();
    let listening = log.lines().find(|line| line.contains("listening") && line.contains("feature"));
    let address = listening.and_then(|line| line.split("address=").nth(1)).expect(&log).trim();
    assert!(TcpStream::connect(address).is_err(), "it still runs");
}

#[test]
fn it_stays_up_until_ctrl_c() {
    let folder = data_folder();
    let mut running = Running(script(folder.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut printed = String::new();
    let mut lines = BufReader::new(running.0.stdout.take().unwrap());
    while !printed.contains("Ctrl-C stops it.") {
        assert_ne!(lines.read_line(&mut printed).unwrap(), 0, "it ended: {printed}");
    }
    let rest = address_of("REST", &printed);
    assert!(TcpStream::connect(&rest).is_ok(), "it does not run");
    running.signal("INT");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(&rest).is_err(), "it left the services behind");
}

#[test]
fn services_that_cannot_start_are_a_failure_with_the_reason() {
    let folder = data_folder();
    let output = script(folder.path()).env("MODEL_PATH", "/no/such/models").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("ended before it was ready") && errors.contains("/no/such/models"), "{errors}");
}

#[test]
fn a_second_one_leaves_the_log_of_the_first_alone() {
    let folder = data_folder();
    let mut running = Running(script(folder.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut first = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("starting"), "{first}");
    let second = script(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("RUN_LOG"));
    running.signal("TERM");
    assert_eq!(running.0.wait().unwrap().code(), Some(143));
}
