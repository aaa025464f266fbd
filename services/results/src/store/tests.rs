#![allow(clippy::unwrap_used)]

mod arrays;
mod backups;
mod durability;
mod erasure;
mod migrations;
mod opening;
mod retention;

use super::*;
use serde_json::value::RawValue;
use tempfile::TempDir;

/// A store in a folder of its own, and that folder.
fn new_store() -> (TempDir, PredictionStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    (folder, store)
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("predictions.db")
}

fn open(folder: &TempDir) -> PredictionStore {
    open_with(&StoreOptions::new(database(folder)), &Readiness::new())
}

fn open_with(options: &StoreOptions, readiness: &Readiness) -> PredictionStore {
    PredictionStore::open(options, readiness).unwrap()
}

fn prediction(request_id: &str, user_id: &str) -> NewPrediction {
    NewPrediction {
        request_id: request_id.to_owned(),
        user_id: user_id.to_owned(),
        model_name: Some("vehicle-detector".to_owned()),
        model_version: "1".to_owned(),
        inference_time_ms: 12.5,
        predictions: RawValue::from_string(format!("[{{\"marker\": \"{request_id}\"}}]")).unwrap(),
        content_sha256: None,
        received_at: None,
    }
}

fn with_hash(request_id: &str, user_id: &str, digit: char) -> NewPrediction {
    let content_sha256 = Some(std::iter::repeat_n(digit, 64).collect());
    NewPrediction { content_sha256, ..prediction(request_id, user_id) }
}

async fn put(store: &PredictionStore, request_id: &str, user_id: &str) {
    let outcome = store.put(prediction(request_id, user_id)).await.unwrap();
    assert!(matches!(outcome, Put::Stored { .. }), "{outcome:?}");
}

async fn ids(store: &PredictionStore, user_id: &str) -> Vec<String> {
    let page = store.page(user_id.to_owned(), None).await.unwrap();
    assert_eq!(page.next, None);
    page.predictions.into_iter().map(|p| p.request_id).collect()
}

/// Erases, and returns the count of the receipt.
async fn erase(store: &PredictionStore, user_id: &str) -> u64 {
    match store.erase_user(user_id.to_owned()).await {
        Ok(Erasure::Done(receipt)) => receipt.deleted_count,
        other => panic!("{other:?}"),
    }
}

fn check_integrity(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

/// Does `action` on the writer's thread, and returns when it begins.
fn on_writer(store: &PredictionStore, action: impl FnOnce(&rusqlite::Connection) + Send + 'static) {
    let (begin, begun) = std::sync::mpsc::channel();
    let job = WriteJob::Run(Box::new(move |connection| {
        begin.send(()).unwrap();
        action(connection);
    }));
    store.shared.writes.submit(job).unwrap();
    begun.recv().unwrap();
}

/// Keeps the writer from working as long as it lives.
pub(crate) struct Pause {
    _resume: std::sync::mpsc::Sender<()>,
}

pub(crate) fn pause(store: &PredictionStore) -> Pause {
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    on_writer(store, move |_| assert!(resumed.recv().is_err(), "ends as the sender drops"));
    Pause { _resume: resume }
}

/// What another program may do with the same file.
fn other_program(folder: &TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(database(folder)).unwrap()
}

#[tokio::test]
async fn a_prediction_comes_back_as_it_was_stored() {
    let (_folder, store) = new_store();
    put(&store, "r1", "u1").await;
    let stored = store.get("r1".to_owned()).await.unwrap().unwrap();
    assert_eq!(stored.user_id, "u1");
    assert_eq!(stored.model_name.as_deref(), Some("vehicle-detector"));
    assert_eq!(stored.model_version, "1");
    assert_eq!(stored.inference_time_ms, 12.5);
    assert_eq!(stored.predictions.get(), r#"[{"marker": "r1"}]"#);
    assert_eq!(stored.content_sha256, None);
    assert!(stored.timestamp.parse::<jiff::Timestamp>().is_ok());
    assert!(store.get("r2".to_owned()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_id_is_taken_once_and_only_the_same_request_sees_what_has_it() {
    let (_folder, store) = new_store();
    assert!(matches!(store.put(with_hash("hashed", "u1", 'a')).await, Ok(Put::Stored { .. })));
    assert!(matches!(store.put(prediction("plain", "u1")).await, Ok(Put::Stored { .. })));

    let repeated = store.put(with_hash("hashed", "u1", 'a')).await.unwrap();
    assert!(matches!(&repeated, Put::Repeated(stored) if stored.request_id == "hashed"), "{repeated:?}");
    for other in [
        with_hash("hashed", "u1", 'b'),
        with_hash("hashed", "u2", 'a'),
        prediction("hashed", "u1"),
        with_hash("plain", "u1", 'a'),
        prediction("plain", "u1"),
    ] {
        let outcome = store.put(other.clone()).await.unwrap();
        assert!(matches!(outcome, Put::Exists), "{other:?}: {outcome:?}");
    }
    assert_eq!(store.stats().await.unwrap().predictions, 2);
}

#[tokio::test]
async fn a_listing_is_newest_first_and_rows_of_one_instant_keep_their_order() {
    let (folder, store) = new_store();
    for number in 0..6 {
        put(&store, &format!("r{number}"), "u1").await;
    }
    put(&store, "other", "u2").await;
    // One instant for r0 to r3, an earlier one for r5: the clock was set back.
    other_program(&folder)
        .execute_batch(
            "UPDATE predictions SET created_at = 2000 WHERE request_id <= 'r3';
             UPDATE predictions SET created_at = 1000 WHERE request_id = 'r5';",
        )
        .unwrap();
    let expected = ["r4", "r3", "r2", "r1", "r0", "r5"];
    assert_eq!(ids(&store, "u1").await, expected);

    // Pages of two, which end inside the instant, show each row once.
    let connection = other_program(&folder);
    let size = PageSize { rows: 2, bytes: usize::MAX };
    let (mut from, mut seen) = (Some(Cursor::NEWEST), Vec::new());
    while let Some(cursor) = from {
        let page = record::page(&connection, "u1", cursor, size).unwrap();
        seen.extend(page.predictions.into_iter().map(|p| p.request_id));
        from = page.next;
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_page_ends_at_its_bytes() {
    let (folder, store) = new_store();
    for number in 0..3 {
        put(&store, &format!("r{number}"), "u1").await;
    }
    let size = PageSize { rows: usize::MAX, bytes: 1 };
    let page = record::page(&other_program(&folder), "u1", Cursor::NEWEST, size).unwrap();
    assert_eq!(page.predictions.len(), 1);
    assert!(page.next.is_some());
}

#[test]
fn queries_use_their_index_and_sort_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(&folder);
    let connection = other_program(&folder);
    for (sql, index) in
        [(record::PAGE, "predictions_by_user"), (record::FIND, "sqlite_autoindex_predictions_1")]
    {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(unbound), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].starts_with("SEARCH") && plan[0].contains(index), "{plan:?}");
    }
}

#[tokio::test]
async fn stats_count_what_is_there() {
    let (_folder, store) = new_store();
    for (request, user) in [("r1", "u1"), ("r2", "u1"), ("r3", "u2")] {
        put(&store, request, user).await;
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.predictions, stats.users, stats.commits), (3, 2, 3));
    assert!(stats.database_bytes + stats.wal_bytes > 0);
}

#[tokio::test]
async fn a_damaged_row_is_an_error_of_its_own() {
    let (folder, store) = new_store();
    assert!(matches!(store.put(with_hash("bad", "u1", 'a')).await, Ok(Put::Stored { .. })));
    put(&store, "good", "u1").await;
    other_program(&folder)
        .execute("UPDATE predictions SET predictions = '[1,' WHERE request_id = 'bad'", [])
        .unwrap();
    assert_eq!(store.get("bad".to_owned()).await.unwrap_err(), StoreError::Damaged);
    assert!(store.get("good".to_owned()).await.unwrap().is_some());
    assert_eq!(store.put(with_hash("bad", "u1", 'a')).await.unwrap_err(), StoreError::Damaged);
    put(&store, "after", "u1").await;
}
