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
    assert_eq!(erase(&store, MARKER).await, 200);
    assert_eq!(files_with(&folder, MARKER), Vec::<String>::new());
    assert!(ids(&store, MARKER).await.is_empty());
    assert!(store.get(format!("{MARKER}-7")).await.unwrap().is_none());
    assert_eq!(ids(&store, "somebody else").await.len(), 200);
    assert_eq!(erase(&store, MARKER).await, 0);
    // The id is free again.
    assert!(matches!(store.put(marked(7)).await, Ok(Put::Stored { .. })));
}

/// A store whose erasures are answered soon, and a reader of another program that keeps its log, which holds a
/// marked prediction.
async fn blocked() -> (TempDir, PredictionStore, rusqlite::Connection) {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        busy_timeout: Duration::from_millis(1),
        // Longer than it takes to note one: who asked sooner would always find the queue full of what was asked before.
        erasure_wait: Duration::from_millis(500),
        ..StoreOptions::new(database(&folder))
    };
    let store = open_with(&options, &Readiness::new());
    assert!(matches!(store.put(marked(1)).await, Ok(Put::Stored { .. })));
    let reader = other_program(&folder);
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM predictions").unwrap();
    (folder, store, reader)
}

/// Asks until the writer had the time to give the receipt an id.
async fn pending(store: &PredictionStore) -> String {
    loop {
        match store.erase_user(MARKER.to_owned()).await {
            Ok(Erasure::Pending { receipt_id: Some(id) }) => return id,
            // The writer has not come to it, and may not come to the next one in time either, unless that finds it idle.
            Ok(Erasure::Pending { receipt_id: None }) => on_writer(store, |_| ()),
            other => panic!("{other:?} though a reader has the log"),
        }
    }
}

async fn done(store: &PredictionStore) -> Receipt {
    loop {
        match store.erase_user(MARKER.to_owned()).await {
            Ok(Erasure::Done(receipt)) => return receipt,
            Ok(Erasure::Pending { .. }) | Err(StoreError::Overloaded) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_erasure_that_a_reader_holds_up_is_pending_and_done_when_it_has_gone() {
    let (folder, store, reader) = blocked().await;
    let id = pending(&store).await;
    assert_eq!(pending(&store).await, id, "the same receipt again");
    assert!(ids(&store, MARKER).await.is_empty(), "the rows are gone for everybody");
    assert_eq!(files_with(&folder, MARKER), ["predictions.db-wal"]);
    let (receipts, _) = store.receipts(1);
    assert_eq!((receipts[0].state, receipts[0].receipt_id.as_str()), (ErasureState::Pending, id.as_str()));
    // Others are served meanwhile.
    put(&store, "other", "somebody else").await;
    reader.execute_batch("COMMIT").unwrap();
    let receipt = done(&store).await;
    assert_eq!((receipt.receipt_id, receipt.deleted_count), (id, 1));
    assert_eq!(files_with(&folder, MARKER), Vec::<String>::new());
    assert_eq!(ids(&store, "somebody else").await, ["other"]);
    drop(reader);
}

#[tokio::test]
async fn what_is_stored_while_an_erasure_is_pending_stays_until_it_is_asked_for_again() {
    let (folder, store, reader) = blocked().await;
    let id = pending(&store).await;
    assert!(matches!(store.put(marked(2)).await, Ok(Put::Stored { .. })));
    assert_eq!(ids(&store, MARKER).await.len(), 1);
    assert_eq!(pending(&store).await, id);
    reader.execute_batch("COMMIT").unwrap();
    let receipt = done(&store).await;
    assert_eq!((receipt.receipt_id, receipt.deleted_count), (id, 2));
    assert_eq!(files_with(&folder, MARKER), Vec::<String>::new());
    drop(reader);
}

#[tokio::test]
async fn an_erasure_that_is_pending_at_a_crash_is_gone_on_with() {
    let (folder, store, _reader) = blocked().await;
    let id = pending(&store).await;
    let copy = crashed_copy(&folder);
    assert_eq!(files_with(&copy, MARKER), ["predictions.db-wal"]);
    let recovered = open(&copy);
    let receipt = loop {
        let (receipts, _) = recovered.receipts(1);
        if receipts[0].state == ErasureState::Done {
            break receipts[0].clone();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!((receipt.receipt_id, receipt.deleted_count), (id, 1));
    assert_eq!(files_with(&copy, MARKER), Vec::<String>::new());
}

#[tokio::test]
async fn an_erasure_is_carried_out_while_others_are_asked_for() {
    const OTHERS: usize = 200;
    let (_folder, store) = new_store();
    put(&store, "first", MARKER).await;
    let paused = pause(&store);
    for number in 0..=OTHERS {
        let user = if number == 0 { MARKER.to_owned() } else { format!("another-{number}") };
        // It is asked for, and nobody waits.
        assert!(store.erase_user(user).now_or_never().is_none());
    }
    let (say, said) = std::sync::mpsc::channel();
    let seen = store.clone();
    let last = move |_: &rusqlite::Connection| {
        let receipts = seen.receipts(OTHERS + 1);
        // The writer must not be the last to have the store.
        drop(seen);
        say.send(receipts).unwrap();
    };
    store.shared.writes.submit(WriteJob::Run(Box::new(last))).unwrap();
    drop(paused);
    let (receipts, _) = said.recv().unwrap();
    let first = receipts.iter().find(|receipt| receipt.deleted_count == 1).expect("everybody's was begun");
    assert_eq!(first.state, ErasureState::Done, "it was kept waiting until nobody asked any more");
}

#[tokio::test]
async fn a_log_with_erased_data_that_a_crash_left_is_truncated_at_the_start() {
    let (folder, store, _reader) = blocked().await;
    pending(&store).await;
    let copy = crashed_copy(&folder);
    // As an earlier version left it: nothing says that something was erased.
    std::fs::remove_file(copy.path().join("erasures.log")).unwrap();
    let recovered = open(&copy);
    // An answer of the writer: what it does first is done then.
    for id in ["later", "and-another", "third"] {
        put(&recovered, id, "somebody else").await;
    }
    assert_eq!(files_with(&copy, MARKER), Vec::<String>::new());
}

#[tokio::test]
async fn two_erasures_at_once_have_a_receipt_each() {
    let (_folder, store) = new_store();
    put(&store, "r1", "u1").await;
    put(&store, "r2", "u2").await;
    let (first, second) = tokio::join!(store.erase_user("u1".to_owned()), store.erase_user("u2".to_owned()));
    // Two at once share the work and have a receipt each.
    let (Erasure::Done(first), Erasure::Done(second)) = (first.unwrap(), second.unwrap()) else { panic!() };
    assert_ne!(first.receipt_id, second.receipt_id);
    assert_eq!((first.deleted_count, second.deleted_count), (1, 1));
    assert_eq!(store.receipts(9).1, 2);
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
    // It came while the erasure was asked for and not yet begun: none of the two is first.
    assert!(matches!(after.await, Ok(Put::Erased)));
    put(&store, "later", "u1").await;
    assert_eq!(ids(&store, "u1").await, ["later"]);
}
