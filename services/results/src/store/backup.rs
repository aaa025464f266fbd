//! A consistent copy of the database while it is written to.
//!
//! `VACUUM INTO` reads one snapshot, so writes go on and it ends; SQLite's backup interface from another connection
//! begins again with every write. The copy has no free pages, no gaps with old bytes and no log.

use super::files;
use super::schema;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Why there is no copy. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One is enough.
    #[error("A backup is being made already: wait for its end.")]
    Running,
    /// Backups are never overwritten.
    #[error("{path} exists already: choose another name for the backup.")]
    Exists {
        /// Where the copy was to be.
        path: PathBuf,
    },
    /// There is nothing to copy.
    #[error("There is no database at {path}: set --db-path (DB_PATH).")]
    NoDatabase {
        /// Where it should be.
        path: PathBuf,
    },
    /// The copy cannot be written.
    #[error("The backup {path} cannot be written: {source}.")]
    File {
        /// Where the copy was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database cannot be read, or the disk is full.
    #[error("The backup {path} failed: {reason}.")]
    Sqlite {
        /// Where the copy was to be.
        path: PathBuf,
        /// SQLite's own words.
        reason: String,
    },
}

/// Copies the database at `database` to `path`, which must not exist; blocking, about a second for a million rows. It may
/// be in use by this process or another.
///
/// # Errors
/// Says why there is no copy; what was written of it is removed.
pub fn backup_database(database: &Path, path: &Path, busy_timeout: Duration) -> Result<Backup, BackupError> {
    let began = Instant::now();
    if path.exists() {
        return Err(BackupError::Exists { path: path.to_owned() });
    }
    if !database.is_file() {
        return Err(BackupError::NoDatabase { path: database.to_owned() });
    }
    // Under its name only when it is whole and on the disk.
    let unfinished = Unfinished::create(files::beside(path, ".unfinished"))
        .map_err(|source| BackupError::File { path: path.to_owned(), source })?;
    copy(database, &unfinished.path, busy_timeout)
        .map_err(|error| BackupError::Sqlite { path: path.to_owned(), reason: error.to_string() })?;
    let bytes = unfinished.publish(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => BackupError::Exists { path: path.to_owned() },
        _ => BackupError::File { path: path.to_owned(), source },
    })?;
    let backup = Backup { path: path.to_owned(), bytes, duration: began.elapsed() };
    let duration_ms = u64::try_from(backup.duration.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(path = %path.display(), bytes, duration_ms, "backup made");
    Ok(backup)
}

fn copy(database: &Path, into: &Path, busy_timeout: Duration) -> rusqlite::Result<()> {
    let connection = schema::connect_for_reading(database, busy_timeout)?;
    let into = into.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(into.to_owned()))?;
    connection.execute("VACUUM INTO ?1", [into]).map(|_| ())
}

/// A file that is removed unless it is published.
pub(super) struct Unfinished {
    pub(super) path: PathBuf,
}

impl Unfinished {
    /// An empty file for its owner's eyes. What an attempt before it has left goes.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path })
    }

    /// Gives the file the name `path`, which nothing may have, once it is on the disk. Returns its size.
    pub(super) fn publish(self, path: &Path) -> io::Result<u64> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces what is there.
        std::fs::hard_link(&self.path, path)?;
        std::fs::remove_file(&self.path)?;
        files::sync_folder_of(path)?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `publish` it is gone already.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(files::beside(&self.path, "-journal"));
    }
}
