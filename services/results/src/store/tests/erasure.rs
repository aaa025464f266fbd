//! An erased user is gone from the answers and from the files.

use super::durability::crashed_copy;
use super::*;
use futures_util::FutureExt as _;

const MARKER: &str = "Zaphod-7f3a9c";

/// The files that hold `needle`.
fn files_with(folder: &TempDir, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        if bytes.windows(needle.len()).any(|window| window == needle.as_bytes()) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

fn marked(number: usize) -> NewPrediction {
    let json = format!("[{{\"owner\": \"{MARKER}\", \"filler\": \"{}\"}}]", "x".repeat(number * 37));
    NewPrediction {
        predictions: RawValue::from_string(json).unwrap(),
        ..prediction(&format!("{MARKER}-{number}"), MARKER)
    }
}

#[tokio::test]
async fn an_erased_user_leaves_no_byte_in_the_files() {
    let (folder, store) = new_store();
    for number in 0..200 {
        assert!(matches!(store.put(marked(number)).await, Ok(Put::Stored { .. })));
        put(&store, &format!("other-{number}"), "somebody else").await;
    }
    assert!(!files_with(&folder, MARKER).is_empty(), "the search finds what is there");
    assert_eq!(store.erase_user(MARKER.to_owned()).await, Ok(200));
    assert_eq!(files_with(&folder, MARKER), Vec::<String>::new());
    assert!(ids(&store, MARKER).await.is_empty());
    assert!(store.get(format!("{MARKER}-7")).await.unwrap().is_none());
    assert_eq!(ids(&store, "somebody else").await.len(), 200);
    assert_eq!(store.erase_user(MARKER.to_owned()).await, Ok(0));
    // The id is free again.
    assert!(matches!(store.put(marked(7)).await, Ok(Put::Stored { .. })));
}

#[tokio::test]
async fn a_log_that_a_reader_keeps_is_truncated_when_it_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { busy_timeout: Duration::from_millis(1), ..StoreOptions::new(database(&folder)) };
    let store = open_with(&options, &Readiness::new());
    assert!(matches!(store.put(marked(1)).await, Ok(Put::Stored { .. })));
    let reader = other_program(&folder);
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM predictions").unwrap();
    assert_eq!(store.erase_user(MARKER.to_owned()).await, Ok(1));
    assert_eq!(files_with(&folder, MARKER), ["predictions.db-wal"]);
    reader.execute_batch("COMMIT").unwrap();
    // The writer tries again by itself, and at the latest when it closes. The reader is still connected: it is not
    // SQLite's own clean-up at the last close that is seen here.
    store.close().await;
    assert_eq!(files_with(&folder, MARKER), Vec::<String>::new());
    drop(reader);
}

#[tokio::test]
async fn a_log_with_erased_data_that_a_crash_left_is_truncated_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { busy_timeout: Duration::from_millis(1), ..StoreOptions::new(database(&folder)) };
    let store = open_with(&options, &Readiness::new());
    assert!(matches!(store.put(marked(1)).await, Ok(Put::Stored { .. })));
    let reader = other_program(&folder);
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM predictions").unwrap();
    assert_eq!(store.erase_user(MARKER.to_owned()).await, Ok(1));
    let copy = crashed_copy(&folder);
    assert_eq!(files_with(&copy, MARKER), ["predictions.db-wal"]);

    let recovered = open(&copy);
    // An answer of the writer: what it does first is done then.
    put(&recovered, "later", "somebody else").await;
    put(&recovered, "and-another", "somebody else").await;
    assert_eq!(files_with(&copy, MARKER), Vec::<String>::new());
    assert_eq!(ids(&recovered, "somebody else").await, ["and-another", "later"]);
}

#[tokio::test]
async fn an_erasure_takes_what_was_sent_before_it_and_happens_though_its_caller_has_gone() {
    let (_folder, store) = new_store();
    let paused = pause(&store);
    let mut before = Box::pin(store.put(prediction("before", "u1")));
    let mut erasure = Box::pin(store.erase_user("u1".to_owned()));
    let mut after = Box::pin(store.put(prediction("after", "u1")));
    // Each is queued by its first poll.
    assert!((&mut before).now_or_never().is_none());
    assert!((&mut erasure).now_or_never().is_none());
    assert!((&mut after).now_or_never().is_none());
    drop(erasure);
    drop(paused);
    assert!(matches!(before.await, Ok(Put::Stored { .. })));
    assert!(matches!(after.await, Ok(Put::Stored { .. })));
    assert_eq!(ids(&store, "u1").await, ["after"]);
}
