//! After the 200 of an erasure, no byte of the person is in any file of the data folder: every file is read, byte by byte.
//!
//! A small version runs with every test run; the whole (1,000 rows among 100,000, 50,000 of others stored and erased in
//! between, 20 rounds) with
//! `cargo test --release -p results-service --test erasure_proof -- --ignored proof_at_full_size --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says what it saw")]

mod process;

use process::{Process, database, integrity};
use results_service::store::{RestoreOptions, backup_database, restore};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Not a test: the service.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started by the others"]
async fn serve() {
    process::serve().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_left_after_the_answer() {
    prove(Size { marked: 100, others: 3_000, churn: 2_000, rounds: 3 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn proof_at_full_size() {
    prove(Size { marked: 1_000, others: 99_000, churn: 50_000, rounds: 20 }).await;
}

struct Size {
    /// Rows of the person who is erased.
    marked: usize,
    /// Rows of people who stay.
    others: usize,
    /// Rows of others that are stored and erased between the person's and their erasure.
    churn: usize,
    rounds: usize,
}

async fn prove(size: Size) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service { process: Process::start(folder.path()).await, http: reqwest::Client::new() };
    let stays = Mark::new();
    let share = size.others / size.rounds;
    for round in 0..size.rounds {
        let (person, passer_by) = (Mark::new(), Mark::new());
        // Mixed, so that their rows share pages.
        let rounds = size.marked.max(share).max(size.churn).div_ceil(100);
        for part in 0..rounds {
            for (mark, rows) in [(&person, size.marked), (&stays, share), (&passer_by, size.churn)] {
                service.store(mark, rows / rounds + usize::from(part < rows % rounds)).await;
            }
        }
        assert!(!person.files(folder.path()).is_empty(), "the search finds what is there");
        assert_eq!(service.erase(&passer_by).await, size.churn as u64);
        passer_by.assert_gone(folder.path());

        // Writes in flight, and a reader that has stopped half-way.
        let stalled = service.stall(&stays).await;
        let busy = Arc::new(AtomicBool::new(true));
        let writer = tokio::spawn(write(service.process.url("/predictions"), Arc::clone(&busy)));
        assert_eq!(service.erase(&person).await, size.marked as u64);
        busy.store(false, Ordering::Relaxed);
        person.assert_gone(folder.path());
        assert!(writer.await.unwrap() > 0, "nothing was in flight");
        drop(stalled);
        assert_eq!(service.count(&stays).await, share * (round + 1), "round {round}");
        assert_eq!(service.count(&person).await, 0);
    }
    restored(&service, folder.path(), &size, share * size.rounds).await;
    drop(service);
    assert_eq!(integrity(&database(folder.path())), "ok");
    println!("{} rounds: no byte of the erased, all {} rows of the other", size.rounds, share * size.rounds);
}

/// A backup that was made before an erasure does not bring anybody back.
async fn restored(service: &Service, folder: &Path, size: &Size, others: usize) {
    let person = Mark::new();
    service.store(&person, size.marked).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup.db");
    backup_database(&database(folder), &backup, Duration::from_secs(5)).unwrap();
    assert!(!person.files(elsewhere.path()).is_empty());
    service.erase(&person).await;
    person.assert_gone(folder);

    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        backup,
        database: database(target.path()),
        erasures: folder.join("erasures.log"),
        erasure_key: folder.join("erasure.key"),
    };
    let restored = restore(&options).unwrap();
    assert_eq!(restored.erased_predictions, size.marked as u64);
    assert!(restored.predictions >= others as u64);
    person.assert_gone(target.path());
    assert_eq!(integrity(&database(target.path())), "ok");
}

/// Random text that is in everything of one person, their id and each of their predictions.
struct Mark(String);

impl Mark {
    fn new() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    fn user_id(&self) -> String {
        format!("user-{}", self.0)
    }

    /// The files that hold the beginning, the middle or the end of the mark: half of a copy counts, too.
    fn files(&self, folder: &Path) -> Vec<String> {
        let parts = [&self.0[..10], &self.0[11..21], &self.0[22..]].map(memchr::memmem::Finder::new);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            let traces: usize = parts.iter().map(|part| part.find_iter(&bytes).count()).sum();
            if traces > 0 {
                found.push(format!("{} traces in {}", traces, entry.file_name().display()));
            }
        }
        found
    }

    fn assert_gone(&self, folder: &Path) {
        assert_eq!(self.files(folder), Vec::<String>::new());
    }
}

struct Service {
    process: Process,
    http: reqwest::Client,
}

impl Service {
    async fn store(&self, mark: &Mark, rows: usize) {
        if rows == 0 {
            return;
        }
        let bodies: Vec<Value> = (0..rows).map(|_| body(&mark.user_id(), &mark.0)).collect();
        let answer = self.http.post(self.process.url("/predictions")).json(&bodies).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["created"], rows, "{answer}");
    }

    /// Until the 200.
    async fn erase(&self, mark: &Mark) -> u64 {
        let url = self.process.url(&format!("/predictions/user/{}", mark.user_id()));
        loop {
            let answer = self.http.delete(&url).send().await.unwrap();
            let status = answer.status();
            let answer: Value = answer.json().await.unwrap();
            match status.as_u16() {
                200 => return answer["deleted_count"].as_u64().unwrap(),
                503 => assert_eq!(answer["status"], "pending", "{answer}"),
                other => panic!("{other}: {answer}"),
            }
        }
    }

    async fn count(&self, mark: &Mark) -> usize {
        let url = self.process.url(&format!("/predictions/user/{}", mark.user_id()));
        let answer: Value = self.http.get(&url).send().await.unwrap().json().await.unwrap();
        answer["count"].as_u64().unwrap() as usize
    }

    /// Begins to read a listing, and stops.
    async fn stall(&self, mark: &Mark) -> TcpStream {
        let mut stream = TcpStream::connect(self.process.address).await.unwrap();
        let request = format!("GET /predictions/user/{} HTTP/1.1\r\nHost: test\r\n\r\n", mark.user_id());
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 1_000]).await.unwrap();
        stream
    }
}

/// A prediction of a length that varies from dozens of bytes to more than a page.
fn body(user_id: &str, mark: &str) -> Value {
    let id = uuid::Uuid::new_v4();
    let bytes = id.as_bytes();
    let length = if bytes[0] == 0 { 9_000 } else { usize::from(bytes[1]) * 3 };
    json!({
        "request_id": format!("{mark}-{id}"), "user_id": user_id, "model_version": "1", "inference_time_ms": 1,
        "predictions": [{"class_name": mark, "filler": "x".repeat(length)}],
    })
}

/// Writes predictions of others one by one.
async fn write(url: String, busy: Arc<AtomicBool>) -> usize {
    let http = reqwest::Client::new();
    let mut written = 0;
    while busy.load(Ordering::Relaxed) {
        let answer = http.post(&url).json(&body("writer", "written")).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        written += 1;
    }
    written
}
