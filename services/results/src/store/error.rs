//! SQLite's failures, sorted by what they mean to a client and to an operator.

use rusqlite::ErrorCode as Sqlite;
use service_kit::ErrorCode;
use std::path::PathBuf;

/// Why the store could not do what was asked. Details are logged where it happened; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The queue is full.
    #[error("The database has more work than it can do in time: send the request again later.")]
    Overloaded,
    /// The store was closed, or its threads have ended.
    #[error("The service is stopping: send the request again later.")]
    Closed,
    /// No room for more data.
    #[error("The disk of the database is full: free some space on it, then send the request again.")]
    DiskFull,
    /// The file, its folder or its file system cannot be written.
    #[error(
        "The database cannot be written: make its file and its folder writable, then send the request again."
    )]
    ReadOnly,
    /// Another program keeps the database locked.
    #[error("Another program keeps the database locked: send the request again later.")]
    Locked,
    /// The file's content is not what SQLite wrote.
    #[error("The database is damaged: restore it from a backup.")]
    Damaged,
    /// The system could not read or write the file.
    #[error("The database's file could not be read or written: check its disk, then send the request again.")]
    Io,
    /// One value is longer than SQLite takes.
    #[error("The prediction is larger than the database takes.")]
    TooLarge,
    /// The receipt of an erasure could not be written, so nothing was erased.
    #[error(
        "The erasure's receipt cannot be written: make the file of the receipts writable, then send the request again."
    )]
    ReceiptsUnwritable,
    /// A fault of ours.
    #[error("The database refused a statement of this service; its log says why.")]
    Internal,
}

impl StoreError {
    /// The kind of failure.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Overloaded => ErrorCode::Overloaded,
            Self::Closed
            | Self::DiskFull
            | Self::ReadOnly
            | Self::Locked
            | Self::Damaged
            | Self::Io
            | Self::ReceiptsUnwritable => ErrorCode::Unavailable,
            Self::TooLarge => ErrorCode::TooLarge,
            Self::Internal => ErrorCode::Internal,
        }
    }

    /// Whether the database as a whole cannot work, so that other requests would fail in the same way.
    pub(super) const fn is_outage(self) -> bool {
        match self {
            Self::DiskFull | Self::ReadOnly | Self::Locked | Self::Damaged | Self::Io => true,
            Self::Overloaded | Self::Closed | Self::TooLarge | Self::ReceiptsUnwritable | Self::Internal => {
                false
            }
        }
    }
}

impl From<&rusqlite::Error> for StoreError {
    fn from(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(Sqlite::DiskFull) => Self::DiskFull,
            Some(Sqlite::ReadOnly | Sqlite::CannotOpen | Sqlite::PermissionDenied) => Self::ReadOnly,
            Some(Sqlite::DatabaseBusy | Sqlite::DatabaseLocked | Sqlite::FileLockingProtocolFailed) => {
                Self::Locked
            }
            Some(Sqlite::DatabaseCorrupt | Sqlite::NotADatabase) => Self::Damaged,
            Some(Sqlite::SystemIoFailure) => Self::Io,
            Some(Sqlite::TooBig) => Self::TooLarge,
            Some(_) => Self::Internal,
            None => match error {
                // A stored value is not what this service writes.
                rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                    Self::Damaged
                }
                _ => Self::Internal,
            },
        }
    }
}

/// Why a database could not be opened. The text is for the operator: what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the database does not exist and cannot be made.
    #[error("The folder {path} of the database cannot be created: {source}.")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be made, or not be read and written.
    #[error("The database {path} cannot be opened for reading and writing: {source}.")]
    File {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} is not an SQLite database: set --db-path (DB_PATH) to another file.")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database is another program's.
    #[error("{path} is a database of another program: set --db-path (DB_PATH) to another file.")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database was written by a newer Convoy.
    #[error(
        "{path} has schema version {found}, and this Convoy knows versions up to {known}: start a newer Convoy, or set --db-path (DB_PATH) to another file."
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The file system cannot share memory between processes, as SQLite's write-ahead log needs.
    #[error("The database {path} cannot use a write-ahead log: put it on a local file system.")]
    NoWriteAheadLog {
        /// The database.
        path: PathBuf,
    },
    /// SQLite failed in another way.
    #[error("The database {path} cannot be opened: {reason}.")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's own words.
        reason: String,
    },
    /// SQLite was built without the table that an erasure needs.
    #[error(
        "This Convoy cannot erase: its SQLite has no sqlite_dbpage. Build it in the folder of its source, where LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB is set."
    )]
    CannotScrub,
    /// The receipts cannot be read or written.
    #[error("The erasure receipts {path} cannot be read and written: {source}.")]
    Receipts {
        /// The receipts.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the receipts open, and so the database.
    #[error(
        "Another Convoy has {path} open: stop it, or set --db-path (DB_PATH) and --erasures (ERASURES) to other files."
    )]
    InUse {
        /// The receipts.
        path: PathBuf,
    },
    /// The receipts are not as they were written.
    #[error("The erasure receipts {path} are damaged in line {line}: put back a copy of the file.")]
    ReceiptsDamaged {
        /// The receipts.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// There are receipts, and no key.
    #[error(
        "The erasure key {path} is missing, and receipts say nothing without it: put the file back, or set --erasure-key-file (ERASURE_KEY_FILE)."
    )]
    KeyMissing {
        /// The key.
        path: PathBuf,
    },
    /// The key cannot be read or made.
    #[error("The erasure key {path} cannot be read or created: {source}.")]
    KeyFile {
        /// The key.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read the key.
    #[error("The erasure key {path} has mode {mode:03o}, so others may read it: chmod 600 it.")]
    KeyExposed {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("The erasure key {path} is not 64 hexadecimal digits: put back the file that Convoy made.")]
    KeyDamaged {
        /// The key.
        path: PathBuf,
    },
    /// The receipts were written under another key.
    #[error(
        "The receipts {path} were written under another key: set --erasure-key-file (ERASURE_KEY_FILE) to theirs."
    )]
    WrongKey {
        /// The receipts.
        path: PathBuf,
    },
    /// A fault of ours.
    #[error("The database's metrics cannot be made: {0}.")]
    Metrics(prometheus::Error),
    /// A thread could not be started.
    #[error("The database's threads cannot be started: {0}.")]
    Thread(std::io::Error),
}
