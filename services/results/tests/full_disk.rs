//! A disk that is full, and one that can only be read: a small file system in a name space of its own, where Linux lets
//! a test make one. Elsewhere the test says that it was left out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says what it saw")]

mod process;

use process::{Process, database, integrity, request_ids};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const DISK: &str = "RESULTS_TEST_DISK";

/// Not a test: the process that the other tests talk to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started by the others"]
async fn serve() {
    process::serve().await;
}

/// Starts the ignored test `inside` again in a name space with a disk of 3 MB.
#[test]
fn a_full_disk_and_one_that_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=3m tmpfs "$RESULTS_TEST_DISK" && exec "$0" --exact inside --ignored --nocapture"#;
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(std::env::current_exe().unwrap()).env(DISK, folder.path());
        command.output()
    };
    let possible = unshare(r#"mount -t tmpfs -o size=3m tmpfs "$RESULTS_TEST_DISK""#);
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("left out: no file system can be mounted in a name space here");
        return;
    }
    let output = unshare(script).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    print!("{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started by the other test"]
async fn inside() {
    let Ok(disk) = std::env::var(DISK) else { return };
    let disk = Path::new(&disk);
    let process = Process::start(disk).await;
    let mut client = Client::new(&process);

    // Until the disk is full, and beyond.
    let refused = loop {
        if let Some(refused) = client.post(20_000).await {
            break refused;
        }
    };
    assert_eq!(refused["code"], "unavailable");
    assert!(refused["error"].as_str().unwrap().starts_with("The disk of the database is full"), "{refused}");
    assert!(client.stored.len() > 10);
    assert_eq!(client.get("/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/health").await.0, StatusCode::OK);
    for _ in 0..20 {
        client.post(20_000).await;
    }
    client.all_are_there().await;

    // With room again it recovers by itself, and goes on.
    let status = Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk).status().unwrap();
    assert!(status.success());
    client.until_ready().await;
    assert_eq!(client.post(20_000).await, None);
    client.all_are_there().await;
    println!("full disk: 503, unready, {} acknowledged and all there, recovered", client.stored.len());

    let remount = |how: &str| Command::new("mount").args(["-o", how]).arg(disk).status().unwrap().success();
    // A file system with a file that is open for writing turns read-only only when it fails.
    drop(process);
    assert!(remount("remount,ro,size=16m"));
    let error = results_service::store::PredictionStore::open(
        &results_service::store::StoreOptions::new(database(disk)),
        &service_kit::Readiness::new(),
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    println!("read-only disk: {error}");
    assert!(remount("remount,rw,size=16m"));
    let process = Process::start(disk).await;
    client.url = process.url("");
    client.all_are_there().await;
    drop(process);
    assert_eq!(integrity(&database(disk)), "ok");
    let stored: HashSet<_> = request_ids(&database(disk)).into_iter().collect();
    assert!(client.stored.iter().all(|id| stored.contains(id)));
}

struct Client {
    url: String,
    http: reqwest::Client,
    stored: Vec<String>,
    sent: usize,
}

impl Client {
    fn new(process: &Process) -> Self {
        Self { url: process.url(""), http: reqwest::Client::new(), stored: Vec::new(), sent: 0 }
    }

    /// Stores a prediction of `bytes`; what the answer says if it is not stored.
    async fn post(&mut self, bytes: usize) -> Option<Value> {
        let id = format!("r{}", self.sent);
        self.sent += 1;
        let body = json!({
            "request_id": id, "user_id": "u1", "model_version": "1", "inference_time_ms": 1,
            "predictions": "x".repeat(bytes),
        });
        let url = format!("{}/predictions", self.url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        match answer.status() {
            StatusCode::CREATED => {
                self.stored.push(id);
                None
            }
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(answer.headers().contains_key("retry-after"));
                Some(answer.json().await.unwrap())
            }
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.get("/ready").await.0 != StatusCode::OK {
            assert!(Instant::now() < deadline, "it does not recover");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn all_are_there(&self) {
        for id in &self.stored {
            assert_eq!(self.get(&format!("/predictions/{id}")).await.0, StatusCode::OK, "{id}");
        }
    }
}
