//! Which files are opened, and what is made of them.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn refusal(path: &Path) -> OpenError {
    match PredictionStore::open(&StoreOptions::new(path), &Readiness::new()) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_new_database_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/predictions.db");
    let store = open_with(&StoreOptions::new(&path), &Readiness::new());
    put(&store, "r1", "u1").await;
    for (name, expected) in [("a", 0o700), ("a/b", 0o700)] {
        assert_eq!(mode(&folder.path().join(name)), expected, "{name}");
    }
    let receipts = ["erasures.log", "erasure.key"].map(|name| path.with_file_name(name));
    let files = [path.clone(), files::beside(&path, "-wal"), files::beside(&path, "-shm")];
    for file in files.into_iter().chain(receipts) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_new_database_has_the_newest_schema_and_is_opened_again() {
    let (folder, store) = new_store();
    put(&store, "r1", "u1").await;
    store.close().await;
    let connection = other_program(&folder);
    assert_eq!(schema::version(&connection).unwrap(), schema::VERSION);
    let strict: i64 = connection
        .query_row("SELECT strict FROM pragma_table_list('predictions')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(strict, 1);
    drop(connection);
    assert_eq!(ids(&open(&folder), "u1").await, ["r1"]);
}

#[test]
fn writes_are_synced_and_deletions_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let connection = schema::open_for_writing(&database(&folder), Duration::ZERO).unwrap().connection;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2, "FULL");
    assert_eq!(pragma("secure_delete"), 1, "ON, not FAST");
    assert_eq!(pragma("foreign_keys"), 1);
    assert_eq!(pragma("application_id"), schema::APPLICATION_ID);
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(schema::open_for_writing(&database(&folder), Duration::ZERO).unwrap().connection);
    other_program(&folder).pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    let before = std::fs::read(database(&folder)).unwrap();
    let error = refusal(&database(&folder));
    assert!(matches!(error, OpenError::Newer { .. }), "{error:?}");
    assert!(error.to_string().contains("start a newer Convoy"), "{error}");
    assert_eq!(std::fs::read(database(&folder)).unwrap(), before);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for text in ["x", "Dear diary, ", &"no database\n".repeat(1000)] {
        std::fs::write(&path, text).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
        assert!(error.to_string().contains("is not an SQLite database"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    let others = folder.path().join("others.db");
    rusqlite::Connection::open(&others).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let before = std::fs::read(&others).unwrap();
    let error = refusal(&others);
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert_eq!(std::fs::read(&others).unwrap(), before);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = refusal(&folder.path().join("file/predictions.db"));
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
}

#[test]
fn the_schema_is_strict() {
    let folder = tempfile::tempdir().unwrap();
    let connection = schema::open_for_writing(&database(&folder), Duration::ZERO).unwrap().connection;
    let insert = "INSERT INTO predictions (request_id, user_id, model_version, inference_time_ms, predictions, \
                  created_at) VALUES ('r', 'u', '1', ?1, '[]', 0)";
    assert!(connection.execute(insert, ["soon"]).is_err());
    assert!(connection.execute(insert, [1.5]).is_ok());
}
