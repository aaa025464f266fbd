//! Databases of earlier versions, with data in them.

use super::*;
use std::time::Instant;

/// A database of `version` with `rows` predictions of each of two users.
fn old_database(folder: &TempDir, version: usize, rows: usize) {
    let connection = schema::create_version(&database(folder), version);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    let insert = "INSERT INTO predictions (request_id, user_id, model_version, inference_time_ms, predictions, \
                  content_sha256, created_at) VALUES (?1, ?2, '1', 1.5, ?3, NULL, ?4)";
    connection.execute_batch("BEGIN").unwrap();
    for number in 0..rows {
        for user in ["old-user", "other"] {
            let id = format!("{user}-{number}");
            let json = format!("[{{\"marker\": \"{user}\", \"n\": {number}}}]");
            connection.execute(insert, (id, user, json, number as i64)).unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
}

#[tokio::test]
async fn a_database_of_every_earlier_version_opens_with_its_rows() {
    for version in 1..=schema::VERSION as usize {
        let folder = tempfile::tempdir().unwrap();
        old_database(&folder, version, 300);
        let store = open(&folder);
        let first = store.get("old-user-7".to_owned()).await.unwrap().unwrap();
        assert_eq!(first.predictions.get(), r#"[{"marker": "old-user", "n": 7}]"#, "version {version}");
        assert_eq!((first.model_name, first.inference_time_ms), (None, 1.5));
        assert_eq!(first.timestamp, "1970-01-01T00:00:00.000007Z");
        put(&store, "new", "old-user").await;
        assert_eq!(ids(&store, "old-user").await[..2], ["new", "old-user-299"]);
        assert_eq!(erase(&store, "old-user").await, 301, "version {version}");
        assert_eq!(ids(&store, "other").await.len(), 300);
        store.close().await;
        check_integrity(&database(&folder));
        assert_eq!(schema::version(&other_program(&folder)).unwrap(), schema::VERSION);
        let bytes = std::fs::read(database(&folder)).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"old-user"), "version {version}");
    }
}

/// Version 1 did not scrub: what its erasures have left goes by itself.
#[tokio::test]
async fn copies_that_an_earlier_version_left_are_overwritten_after_the_migration() {
    let folder = tempfile::tempdir().unwrap();
    old_database(&folder, 1, 400);
    let connection = other_program(&folder);
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(())).unwrap();
    connection.execute("DELETE FROM predictions WHERE id % 3 = 0", []).unwrap();
    connection.execute("DELETE FROM predictions WHERE user_id = 'old-user'", []).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let holds = || std::fs::read(database(&folder)).unwrap().windows(8).any(|w| w == b"old-user");
    assert!(holds(), "nothing was left: the test shows nothing");
    let store = open(&folder);
    let deadline = Instant::now() + Duration::from_secs(60);
    while holds() {
        assert!(Instant::now() < deadline, "copies stay");
        tokio::task::yield_now().await;
    }
    assert_eq!(ids(&store, "other").await.len(), 267);
}

#[test]
fn the_migrations_that_were_released_are_as_they_were() {
    use sha2::Digest as _;
    let text = include_str!("../../../migrations/0001_predictions.sql");
    let hash = service_kit::hexadecimal(&sha2::Sha256::digest(text));
    assert_eq!(
        hash, "1a3d01dc5089b6953976c736cefae6c5e74f7eb209b25b8e98b89a46f82cc89c",
        "a database of this version would be migrated in two ways"
    );
}
