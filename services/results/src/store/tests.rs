#![allow(clippy::unwrap_used)]

mod arrays;
mod backups;
mod durability;
mod erasure;
mod migrations;
mod opening;
mod reads;
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

async fn page_of(store: &PredictionStore, user_id: &str, from: Cursor) -> Page {
    let filter = Filter { user_id: Some(user_id.to_owned()), ..Filter::default() };
    store.page(Arc::new(filter), from, usize::MAX).await.unwrap()
}

async fn ids(store: &PredictionStore, user_id: &str) -> Vec<String> {
    let (mut from, mut ids) = (Some(Cursor::NEWEST), Vec::new());
    while let Some(cursor) = from {
        let page = page_of(store, user_id, cursor).await;
        ids.extend(page.predictions.into_iter().map(|p| p.request_id));
        from = page.next;
    }
    ids
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
