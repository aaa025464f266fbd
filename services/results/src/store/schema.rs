//! Opening the file: who may read it, whose it is, and the migrations that bring it to this program's version.

use super::error::OpenError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// One file per version, applied in order; a file that was ever released is never changed.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_predictions.sql")];

/// `PRAGMA application_id`, set by the first migration: `Conv`.
pub(super) const APPLICATION_ID: i64 = 0x436F_6E76;

/// The version of a database that this program has migrated.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Opens the database for writing; creates it and its folder, and migrates it to [`VERSION`].
///
/// A file that is not a database of Convoy, or is of a newer version, is left as it is.
pub(super) fn open_for_writing(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    create(path)?;
    check_header(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|e| sqlite(path, &e))?;
    prepare(&connection, busy_timeout).map_err(|e| sqlite(path, &e))?;
    check_owner(&connection, path)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|e| sqlite(path, &e))?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog { path: path.to_owned() });
    }
    configure_writer(&connection).map_err(|e| sqlite(path, &e))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens a migrated database for reading.
pub(super) fn open_for_reading(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| sqlite(path, &e))?;
    prepare(&connection, busy_timeout).map_err(|e| sqlite(path, &e))?;
    Ok(connection)
}

/// Predictions are about persons: what is made here is for its owner's eyes. What exists keeps its mode. SQLite gives
/// the write-ahead log the mode of the database.
fn create(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder_error = |source| OpenError::Folder { path: folder.to_owned(), source };
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(folder_error)?;
    }
    let is_new = !path.exists();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    if is_new {
        // The file's name must survive a power cut, as its content does.
        File::open(folder).and_then(|f| f.sync_all()).map_err(folder_error)?;
    }
    Ok(())
}

/// SQLite takes a file of a few bytes for an empty database and overwrites it.
fn check_header(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    // After a crash the first page may be in one of these only; SQLite then puts it back.
    if super::beside(path, "-wal").exists() || super::beside(path, "-journal").exists() {
        return Ok(());
    }
    let mut header = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut header))
        .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    if header.is_empty() || header == MAGIC {
        Ok(())
    } else {
        Err(OpenError::NotADatabase { path: path.to_owned() })
    }
}

fn prepare(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_timeout)?;
    // Sorting must not leave personal data in temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    // A commit is on the disk before its answer is sent.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted is overwritten with zeros (`FAST` would leave free pages as they are).
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    // After a burst the log's file shrinks to this at the next checkpoint that reaches its end, in bytes.
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))
}

/// Refuses files of others before anything is written to them.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = version(connection).map_err(|e| sqlite(path, &e))?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let application: i64 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|e| sqlite(path, &e))?;
    let is_empty: bool = connection
        .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(|e| sqlite(path, &e))?;
    let is_new = application == 0 && found == 0 && is_empty;
    if application == APPLICATION_ID || is_new {
        Ok(())
    } else {
        Err(OpenError::Foreign { path: path.to_owned() })
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    for (index, migration) in (0_i64..).zip(MIGRATIONS) {
        apply(connection, index, migration).map_err(|e| sqlite(path, &e))?;
    }
    Ok(())
}

/// Brings the database from version `from` to the next, unless it is there already.
fn apply(connection: &mut Connection, from: i64, migration: &str) -> rusqlite::Result<()> {
    // The version is read under the lock: another process may be migrating the same file.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? != from {
        return Ok(());
    }
    transaction.execute_batch(migration)?;
    transaction.pragma_update(None, "user_version", from + 1)?;
    transaction.commit()?;
    tracing::info!(from_version = from, to_version = from + 1, "database migrated");
    Ok(())
}

/// The schema version of a database; 0 when it was just created.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path },
        _ => OpenError::Sqlite { path, reason: error.to_string() },
    }
}
