//! Opening the file: who may read it, whose it is, and the migrations that bring it to this program's version.

use super::error::OpenError;
use super::{files, scrub};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// How long a copy that nobody else knows may be locked.
const COPY_BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// One file per version, applied in order; a file that was ever released is never changed.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/0001_predictions.sql"),
    include_str!("../../migrations/0002_by_time.sql"),
];

/// From this version on, an erasure leaves no copies inside of pages.
const SCRUBBED_SINCE: i64 = 2;

/// `PRAGMA application_id`, set by the first migration: `Conv`.
pub(super) const APPLICATION_ID: i64 = 0x436F_6E76;

/// The version of a database that this program has migrated.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Opens the database for writing; creates it and its folder, and migrates it to [`VERSION`].
///
/// A file that is not a database of Convoy, or is of a newer version, is left as it is.
pub(super) fn open_for_writing(path: &Path, busy_timeout: Duration) -> Result<Opened, OpenError> {
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
    if !scrub::is_possible(&connection).map_err(|e| sqlite(path, &e))? {
        return Err(OpenError::CannotScrub);
    }
    let before = migrate(&mut connection, path)?;
    Ok(Opened { connection, was_unscrubbed: (1..SCRUBBED_SINCE).contains(&before) })
}

/// A database that is open for writing.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// It was written by a version whose erasures left copies inside of pages.
    pub(super) was_unscrubbed: bool,
}

/// Opens a migrated database for reading.
pub(super) fn open_for_reading(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    connect_for_reading(path, busy_timeout).map_err(|e| sqlite(path, &e))
}

/// The same with SQLite's own error.
pub(super) fn connect_for_reading(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection, busy_timeout)?;
    Ok(connection)
}

/// Opens and migrates a copy that nobody else uses and no crash has to spare, of the database `of`. It has no log.
pub(super) fn open_copy(path: &Path, of: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| sqlite(of, &error);
    check_header(path).map_err(|_| OpenError::NotADatabase { path: of.to_owned() })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&connection, COPY_BUSY_TIMEOUT).map_err(failed)?;
    check_owner(&connection, of)?;
    if version(&connection).map_err(failed)? == 0 {
        return Err(OpenError::NotADatabase { path: of.to_owned() });
    }
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(())).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    migrate(&mut connection, of)?;
    Ok(connection)
}

/// Predictions are about persons: what is made here is for its owner's eyes. What exists keeps its mode. SQLite gives
/// the write-ahead log the mode of the database.
fn create(path: &Path) -> Result<(), OpenError> {
    create_folder(path)?;
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
        files::sync_folder_of(path).map_err(|source| folder_error(path, source))?;
    }
    Ok(())
}

/// Makes the folder of the database, for its owner's eyes.
pub(super) fn create_folder(path: &Path) -> Result<(), OpenError> {
    let folder = files::folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| folder_error(path, source))
}

fn folder_error(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Folder { path: files::folder_of(path).to_owned(), source }
}

/// SQLite takes a file of a few bytes for an empty database and overwrites it.
fn check_header(path: &Path) -> Result<(), OpenError> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    // After a crash the first page may be in one of these only; SQLite then puts it back.
    if files::beside(path, "-wal").exists() || files::beside(path, "-journal").exists() {
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

/// Returns the version that the database had before.
fn migrate(connection: &mut Connection, path: &Path) -> Result<i64, OpenError> {
    let before = version(connection).map_err(|e| sqlite(path, &e))?;
    for (index, migration) in (0_i64..).zip(MIGRATIONS) {
        apply(connection, index, migration).map_err(|e| sqlite(path, &e))?;
    }
    Ok(before)
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

/// A database as an earlier version made it, for tests.
#[cfg(test)]
pub(super) fn create_version(path: &Path, version: usize) -> Connection {
    let mut connection = Connection::open(path).expect("a new database");
    for (index, migration) in (0_i64..).zip(&MIGRATIONS[..version]) {
        apply(&mut connection, index, migration).expect("a migration");
    }
    connection
}

/// The schema version of a database; 0 when it was just created.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path },
        _ => OpenError::Sqlite { path, reason: error.to_string() },
    }
}
