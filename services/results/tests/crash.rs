//! kill -9 at random moments under 32 writers, and logs that are cut off.
//!
//! A few rounds run with every test run; all fifty with
//! `cargo test -p results-service --test crash -- --ignored fifty_rounds --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says what it saw")]

mod process;

use process::{Process, database, integrity, request_ids};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

const WRITERS: usize = 32;

/// Not a test: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is started by the others"]
async fn serve() {
    process::serve().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_twice_after_kill_9() {
    crash(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn fifty_rounds() {
    crash(50).await;
}

/// What the writers know.
#[derive(Default)]
struct Known {
    acknowledged: HashSet<String>,
    sent: HashSet<String>,
}

async fn crash(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    let (mut cut_anywhere, mut checkpointed) = (0, 0);
    for round in 0..rounds {
        let mut process = Process::start(folder.path()).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(process.url("/predictions"), format!("{round}-{writer}"))))
            .collect();
        tokio::time::sleep(Duration::from_micros(20_000 + random(400_000))).await;
        process.kill();
        for writer in writers {
            let of_writer = writer.await.unwrap();
            known.acknowledged.extend(of_writer.acknowledged);
            known.sent.extend(of_writer.sent);
        }

        let cut = cut_log(folder.path());
        cut_anywhere += usize::from(cut.anywhere);
        checkpointed += cut.checkpointed;

        let mut process = Process::start(folder.path()).await;
        process.kill();
        let stored = request_ids(&database(folder.path()));
        let distinct: HashSet<_> = stored.iter().cloned().collect();
        assert_eq!(distinct.len(), stored.len(), "round {round}: one is there twice");
        let lost: Vec<_> = known.acknowledged.difference(&distinct).collect();
        assert!(lost.is_empty(), "round {round}: {} acknowledged are gone: {lost:?}", lost.len());
        assert!(distinct.is_subset(&known.sent), "round {round}: one is there that nobody sent");
        assert_eq!(integrity(&database(folder.path())), "ok", "round {round}");
    }
    assert!(known.acknowledged.len() > WRITERS, "hardly anything was written");
    println!(
        "{rounds} rounds: {} acknowledged, none lost, none twice; {cut_anywhere} logs cut at any byte, the others after \
         what was being checkpointed; {checkpointed} checkpointed rows were there after the cuts",
        known.acknowledged.len()
    );
}

/// Sends predictions until the service is gone.
async fn write(url: String, writer: String) -> Known {
    let client = reqwest::Client::new();
    let mut known = Known::default();
    for number in 0.. {
        let id = format!("{writer}-{number}");
        known.sent.insert(id.clone());
        let body = json!({
            "request_id": id, "user_id": format!("user-{}", number % 7), "model_version": "1",
            "inference_time_ms": 1.5, "predictions": [{"class_name": "bus", "filler": "x".repeat(number % 600)}],
        });
        match client.post(&url).json(&body).send().await {
            Ok(answer) if answer.status() == 201 => known.acknowledged.insert(id),
            Ok(answer) => panic!("{}", answer.status()),
            Err(_) => break,
        };
    }
    known
}

/// What [`cut_log`] did.
struct Cut {
    /// The log was cut at any of its bytes.
    anywhere: bool,
    /// Rows that had been checkpointed.
    checkpointed: usize,
}

/// Cuts a copy of the log at a random byte: the service opens it, and has at least what was checkpointed.
///
/// Frames that a checkpoint has copied, or was copying, are on the disk before it begins, and no crash takes them away
/// again; a log is cut after those.
fn cut_log(folder: &Path) -> Cut {
    let copy = tempfile::tempdir().unwrap();
    let path = database(copy.path());
    for suffix in ["", "-wal"] {
        let name = format!("predictions.db{suffix}");
        std::fs::copy(folder.join(&name), copy.path().join(&name)).unwrap();
    }
    let log = copy.path().join("predictions.db-wal");
    let length = std::fs::metadata(&log).unwrap().len();
    let Checkpoint { done, attempted } = checkpoint(&folder.join("predictions.db-shm"));
    let checkpointed = if done == attempted {
        // Without its log a database shows what was checkpointed.
        let alone = tempfile::tempdir().unwrap();
        std::fs::copy(&path, database(alone.path())).unwrap();
        request_ids_if_any(&database(alone.path()))
    } else {
        Vec::new()
    };
    let least = if attempted == 0 { 0 } else { LOG_HEADER + u64::from(attempted) * FRAME };
    let at = least + random((length - least.min(length)).max(1));
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(at).unwrap();

    let options = results_service::store::StoreOptions::new(&path);
    let store = results_service::store::PredictionStore::open(&options, &service_kit::Readiness::new());
    assert!(store.is_ok(), "cut at {at} of {length}: {:?}", store.err().map(|error| error.to_string()));
    drop(store);
    assert_eq!(integrity(&path), "ok", "cut at {at} of {length}");
    let stored: HashSet<_> = request_ids(&path).into_iter().collect();
    let gone: Vec<_> = checkpointed.iter().filter(|id| !stored.contains(*id)).collect();
    assert!(gone.is_empty(), "cut at {at} of {length}: {} checkpointed are gone: {gone:?}", gone.len());
    Cut { anywhere: attempted == 0, checkpointed: checkpointed.len() }
}

/// Before the first checkpoint the file holds no table yet.
fn request_ids_if_any(database: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'predictions'";
    let tables: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    if tables == 0 { Vec::new() } else { request_ids(database) }
}

const LOG_HEADER: u64 = 32;
/// Of pages of 4 KiB.
const FRAME: u64 = 24 + 4096;

/// How many of the log's frames a checkpoint has copied into the database, and may have copied.
struct Checkpoint {
    done: u32,
    attempted: u32,
}

/// From the index beside the log (<https://www.sqlite.org/walformat.html#the_checkpoint_information>).
fn checkpoint(index: &Path) -> Checkpoint {
    let bytes = std::fs::read(index).unwrap();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    Checkpoint { done: word(96), attempted: word(128) }
}

/// Below `bound`.
fn random(bound: u64) -> u64 {
    let bytes: [u8; 16] = *uuid::Uuid::new_v4().as_bytes();
    u64::from_ne_bytes(bytes[..8].try_into().unwrap()) % bound
}
