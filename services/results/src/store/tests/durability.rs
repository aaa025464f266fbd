//! What was acknowledged is there, whatever happens next.

use super::*;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use std::pin::Pin;

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Put, StoreError>> + 'a>>;

/// Copies the files of a store that still runs, as a crash would leave them.
pub(super) fn crashed_copy(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["predictions.db", "predictions.db-wal", "erasures.log", "erasure.key"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// Starts puts until one is refused because the queue is full, and returns those that were accepted. The writer must be
/// paused.
fn fill(store: &PredictionStore) -> Vec<Pending<'_>> {
    let mut accepted: Vec<Pending<'_>> = Vec::new();
    for number in 0..10_000 {
        let mut put: Pending<'_> = Box::pin(store.put(prediction(&format!("r{number}"), "u1")));
        match (&mut put).now_or_never() {
            None => accepted.push(put),
            Some(refused) => {
                assert_eq!(refused.unwrap_err(), StoreError::Overloaded);
                return accepted;
            }
        }
    }
    panic!("the queue never was full");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concurrent_clients_stored_survives_a_crash() {
    let (folder, store) = new_store();
    let clients = (0..32).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                put(&store, &format!("c{client}-{number}"), &format!("u{client}")).await;
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let copy = crashed_copy(&folder);
    let recovered = open(&copy);
    for client in 0..32 {
        let expected: Vec<_> = (0..20).rev().map(|number| format!("c{client}-{number}")).collect();
        assert_eq!(ids(&recovered, &format!("u{client}")).await, expected);
    }
    check_integrity(&database(&copy));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_it_took_is_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { queue: 100, ..StoreOptions::new(database(&folder)) };
    let store = open_with(&options, &Readiness::new());
    let paused = pause(&store);
    let accepted = fill(&store);
    assert_eq!(accepted.len(), 100);
    drop(paused);
    let outcomes = join_all(accepted).await;
    assert!(outcomes.iter().all(|o| matches!(o, Ok(Put::Stored { .. }))), "{outcomes:?}");
    assert_eq!(ids(&store, "u1").await.len(), 100);
    assert_eq!(store.stats().await.unwrap().commits, 1);
}

#[tokio::test]
async fn waiting_predictions_take_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { queue_bytes: 100, ..StoreOptions::new(database(&folder)) };
    let store = open_with(&options, &Readiness::new());
    let paused = pause(&store);
    let accepted = fill(&store);
    // 18 bytes each.
    assert_eq!(accepted.len(), 5);
    drop(paused);
    join_all(accepted).await;
    put(&store, "later", "u1").await;
}

#[tokio::test]
async fn of_one_id_twice_in_a_group_the_first_is_stored() {
    let (_folder, store) = new_store();
    let paused = pause(&store);
    let mut puts: Vec<Pending<'_>> = vec![
        Box::pin(store.put(with_hash("r", "u1", 'a'))),
        Box::pin(store.put(with_hash("r", "u1", 'a'))),
        Box::pin(store.put(with_hash("r", "u2", 'b'))),
        Box::pin(store.put(prediction("s", "u1"))),
    ];
    for put in &mut puts {
        assert!(put.now_or_never().is_none());
    }
    drop(paused);
    let outcomes = join_all(puts).await;
    assert!(
        matches!(
            outcomes[..],
            [Ok(Put::Stored { .. }), Ok(Put::Repeated(_)), Ok(Put::Exists), Ok(Put::Stored { .. })]
        ),
        "{outcomes:?}"
    );
    assert_eq!(store.stats().await.unwrap().commits, 1);
}

#[tokio::test]
async fn a_prediction_whose_caller_has_gone_is_not_stored() {
    let (_folder, store) = new_store();
    let paused = pause(&store);
    let mut gone: Pending<'_> = Box::pin(store.put(prediction("gone", "u1")));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    drop(paused);
    put(&store, "after", "u1").await;
    assert!(store.get("gone".to_owned()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_under_load_keeps_what_was_acknowledged() {
    let (folder, store) = new_store();
    let (acknowledge, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (store, acknowledge) = (store.clone(), acknowledge.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let id = format!("c{client}-{number}");
                    match store.put(prediction(&id, "u1")).await {
                        Ok(Put::Stored { .. }) => acknowledge.send(id).unwrap(),
                        other => return other.unwrap_err(),
                    }
                }
                unreachable!("only closing ends a client");
            })
        })
        .collect();
    drop(acknowledge);
    let mut known = Vec::new();
    acknowledged.recv_many(&mut known, 50).await;
    store.close().await;
    for client in clients {
        assert_eq!(client.await.unwrap(), StoreError::Closed);
    }
    while let Some(id) = acknowledged.recv().await {
        known.push(id);
    }
    assert!(!folder.path().join("predictions.db-wal").exists(), "closed cleanly");
    let reopened = open(&folder);
    for id in known {
        assert!(reopened.get(id.clone()).await.unwrap().is_some(), "{id}");
    }
}

#[tokio::test]
async fn a_locked_database_is_unready_until_it_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let readiness = Readiness::new();
    let options =
        StoreOptions { busy_timeout: Duration::from_millis(1), ..StoreOptions::new(database(&folder)) };
    let store = open_with(&options, &readiness);
    let other = other_program(&folder);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.put(prediction("r1", "u1")).await.unwrap_err(), StoreError::Locked);
    assert!(!readiness.is_ready());
    assert_eq!(readiness.waiting_for(), [StoreError::Locked.to_string()]);
    // Reading goes on.
    assert!(store.get("r1".to_owned()).await.unwrap().is_none());
    other.execute_batch("COMMIT").unwrap();
    // Without a write of anybody's: the writer looks by itself.
    readiness.wait_ready().await;
    put(&store, "r1", "u1").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_unready_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let readiness = Readiness::new();
    let store = open_with(&StoreOptions::new(database(&folder)), &readiness);
    put(&store, "kept", "u1").await;
    on_writer(&store, |c| c.pragma_update(None, "query_only", true).unwrap());
    assert_eq!(store.put(prediction("refused", "u1")).await.unwrap_err(), StoreError::ReadOnly);
    assert_eq!(readiness.waiting_for(), [StoreError::ReadOnly.to_string()]);
    assert_eq!(ids(&store, "u1").await, ["kept"]);
    on_writer(&store, |c| c.pragma_update(None, "query_only", false).unwrap());
    readiness.wait_ready().await;
    put(&store, "refused", "u1").await;
}

#[tokio::test]
async fn a_full_disk_is_unready_and_loses_only_what_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let readiness = Readiness::new();
    let store = open_with(&StoreOptions::new(database(&folder)), &readiness);
    put(&store, "kept", "u1").await;
    on_writer(&store, |c| c.pragma_update_and_check(None, "max_page_count", 8, |_| Ok(())).unwrap());
    let large = RawValue::from_string(format!("\"{}\"", "x".repeat(1 << 20))).unwrap();
    let too_much = NewPrediction { predictions: large, ..prediction("large", "u1") };
    assert_eq!(store.put(too_much.clone()).await.unwrap_err(), StoreError::DiskFull);
    on_writer(&store, |c| c.pragma_update_and_check(None, "max_page_count", 1 << 30, |_| Ok(())).unwrap());
    readiness.wait_ready().await;
    assert!(matches!(store.put(too_much).await, Ok(Put::Stored { .. })));
    // The large one fills a page of the listing by itself.
    let newest = page_of(&store, "u1", Cursor::NEWEST).await;
    assert_eq!(newest.predictions[0].request_id, "large");
    let oldest = page_of(&store, "u1", newest.next.unwrap()).await;
    assert_eq!(oldest.predictions[0].request_id, "kept");
}
