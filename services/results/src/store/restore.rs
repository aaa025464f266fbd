//! Putting a backup back, without bringing back anybody who was erased since it was made.

use super::backup::Unfinished;
use super::erase;
use super::error::OpenError;
use super::files;
use super::receipts::ErasureLog;
use super::schema;
use rusqlite::Connection;
use std::io;
use std::path::{Path, PathBuf};

/// What is put back, and where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The copy; it is read and left as it is.
    pub backup: PathBuf,
    /// The database to be; it must not exist.
    pub database: PathBuf,
    /// The receipts of erasures.
    pub erasures: PathBuf,
    /// The key that they name users under.
    pub erasure_key: PathBuf,
}

/// What was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Rows that the database has now.
    pub predictions: u64,
    /// Users who were in the backup and had been erased since.
    pub erased_users: u64,
    /// Rows of theirs.
    pub erased_predictions: u64,
}

/// Why nothing was put back. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing is overwritten.
    #[error("{path} exists: stop Convoy, and move the database and the files beside it away first.")]
    Exists {
        /// The database, or its write-ahead log.
        path: PathBuf,
    },
    /// The backup cannot be read, or the database not be written.
    #[error("{path} cannot be restored: {source}.")]
    File {
        /// The file at fault.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The backup is damaged.
    #[error("The backup {path} is damaged, so nothing was restored: {finding}.")]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// The first thing that SQLite's `integrity_check` found.
        finding: String,
    },
    /// SQLite failed.
    #[error("{path} cannot be restored: {reason}.")]
    Sqlite {
        /// The backup.
        path: PathBuf,
        /// SQLite's own words.
        reason: String,
    },
    /// The backup is no database of ours, or the receipts cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Checks the backup, removes from a copy of it everybody who was erased, and makes that the database; blocking. What was
/// stored after a user's erasure stays.
///
/// # Errors
/// Says what is wrong; then there is no database.
pub fn restore(options: &RestoreOptions) -> Result<Restored, RestoreError> {
    let RestoreOptions { backup, database, .. } = options;
    for path in [database.clone(), files::beside(database, "-wal"), files::beside(database, "-journal")] {
        if path.exists() {
            return Err(RestoreError::Exists { path });
        }
    }
    let (ledger, key) = ErasureLog::load(&options.erasures, &options.erasure_key)?;
    schema::create_folder(database)?;
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::File { path, source }
    };
    let sqlite =
        |error: rusqlite::Error| RestoreError::Sqlite { path: backup.clone(), reason: error.to_string() };
    let work = Unfinished::create(files::beside(database, ".restoring")).map_err(file_error(database))?;
    std::fs::copy(backup, &work.path).map_err(file_error(backup))?;
    make_private(&work.path).map_err(file_error(&work.path))?;

    let mut connection = schema::open_copy(&work.path, backup).map_err(|error| match error {
        OpenError::Sqlite { path, reason } => RestoreError::Damaged { path, finding: reason },
        other => other.into(),
    })?;
    let finding: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if finding != "ok" {
        return Err(RestoreError::Damaged { path: backup.clone(), finding });
    }
    let mut restored = Restored { predictions: 0, erased_users: 0, erased_predictions: 0 };
    let mut erased = Vec::new();
    erase::each_user(&connection, |user_id| {
        if let Some(at) = ledger.erased_at(&key.hash(user_id)) {
            erased.push((user_id.to_owned(), at));
        }
        Ok(true)
    })
    .map_err(sqlite)?;
    let transaction = connection.transaction().map_err(sqlite)?;
    for (user_id, at) in erased {
        let rows = erase::delete_user(&transaction, &user_id, at, MOST_ROWS).map_err(sqlite)?;
        restored.erased_users += u64::from(rows > 0);
        restored.erased_predictions += rows as u64;
    }
    transaction.commit().map_err(sqlite)?;
    restored.predictions = count(&connection).map_err(sqlite)?;

    // A fresh file: what was deleted is in no page of it.
    let fresh = Unfinished::create(files::beside(database, ".unfinished")).map_err(file_error(database))?;
    let into = fresh.path.to_str().ok_or_else(|| sqlite(rusqlite::Error::InvalidPath(fresh.path.clone())))?;
    connection.execute("VACUUM INTO ?1", [into]).map_err(sqlite)?;
    drop(connection);
    drop(work);
    fresh.publish(database).map_err(file_error(database))?;
    Ok(restored)
}

/// No limit.
const MOST_ROWS: usize = i64::MAX as usize;

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT COUNT(*) FROM predictions";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
}

/// Copying a file copies its permissions.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
