//! Receipts of erasures, in a file outside of the database, so that putting an old database back does not undo them.
//!
//! `erasures.log` is JSON, one line each: first the version and the key's fingerprint; then `pending` when an erasure
//! begins and `done` when no byte of the person is left. It is only ever appended to, and each line is synced before
//! what it says is acted upon. A user is named by [`UserHash`] alone.

use super::error::OpenError;
use super::files;
use super::key::{ErasureKey, UserHash};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::timestamp::to_rfc3339;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use utoipa::ToSchema;
use uuid::Uuid;

/// The file format's version.
const VERSION: u32 = 1;

/// What an operator and the person get to see of an erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Receipt {
    /// A UUID.
    pub receipt_id: String,
    /// Whether it is done.
    pub state: ErasureState,
    /// HMAC-SHA256 of the user's id under the erasure key, in hex.
    pub user_hash: String,
    /// Rows that are erased; while pending, rows that are to be.
    pub deleted_count: u64,
    /// What was received up to this time is erased: RFC 3339, UTC, microseconds.
    pub requested_at: String,
    /// When no byte was left; none while pending.
    pub completed_at: Option<String>,
}

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErasureState {
    /// Copies may still be in the files.
    Pending,
    /// No byte is left.
    Done,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Erasures { version: u32, key: String },
    Pending { receipt: Uuid, user: String, rows: u64, at: Timestamp },
    Done { receipt: Uuid, deleted: u64, at: Timestamp },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Uuid,
    user: UserHash,
    at: i64,
    deleted: u64,
    done_at: Option<i64>,
}

impl Entry {
    fn receipt(&self) -> Receipt {
        let text = |micros| Timestamp::from_microsecond(micros).map(to_rfc3339).unwrap_or_default();
        Receipt {
            receipt_id: self.id.to_string(),
            state: if self.done_at.is_some() { ErasureState::Done } else { ErasureState::Pending },
            user_hash: self.user.to_string(),
            deleted_count: self.deleted,
            requested_at: text(self.at),
            completed_at: self.done_at.map(text),
        }
    }
}

/// An erasure that was begun: what a restart needs to go on with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingErasure {
    pub(super) id: Uuid,
    pub(super) user: UserHash,
    pub(super) rows: u64,
    pub(super) at: i64,
}

/// The receipts in memory, about 100 bytes each.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    /// Places in `entries` of those that were begun and are not done.
    pending: BTreeMap<Uuid, usize>,
    /// When each user was last erased.
    erased_at: HashMap<UserHash, i64>,
}

impl Ledger {
    /// When `user` was last erased, in microseconds since 1970.
    pub(super) fn erased_at(&self, user: &UserHash) -> Option<i64> {
        self.erased_at.get(user).copied()
    }

    /// The time of the last erasure of all.
    pub(super) fn last(&self) -> Option<i64> {
        self.erased_at.values().copied().max()
    }

    pub(super) fn pending(&self) -> Vec<PendingErasure> {
        let entry = |at: &usize| self.entries[*at];
        let places = self.pending.values().map(entry);
        places.map(|e| PendingErasure { id: e.id, user: e.user, rows: e.deleted, at: e.at }).collect()
    }

    /// At most `limit` receipts, newest first, and how many there are.
    pub(super) fn newest(&self, limit: usize) -> (Vec<Receipt>, usize) {
        (self.entries.iter().rev().take(limit).map(Entry::receipt).collect(), self.entries.len())
    }

    fn begin(&mut self, id: Uuid, user: UserHash, rows: u64, at: i64) {
        let place = self.pending.get(&id).copied().or_else(|| self.entries.iter().rposition(|e| e.id == id));
        let place = place.unwrap_or_else(|| {
            self.entries.push(Entry { id, user, at, deleted: rows, done_at: None });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[place];
        (entry.deleted, entry.at, entry.done_at) = (rows, at, None);
        self.pending.insert(id, place);
        let latest = self.erased_at.entry(user).or_insert(at);
        *latest = at.max(*latest);
    }

    /// `None` for a receipt that was never begun.
    fn finish(&mut self, id: Uuid, deleted: u64, at: i64) -> Option<Receipt> {
        let entry = &mut self.entries[self.pending.remove(&id)?];
        (entry.deleted, entry.done_at) = (deleted, Some(at));
        Some(entry.receipt())
    }
}

/// The file, written by one process at a time, and its content in memory, which readers share.
#[derive(Debug)]
pub(super) struct ErasureLog {
    file: File,
    /// The length of what was written whole.
    length: u64,
    /// Bytes of a line that was not written whole may follow.
    torn: bool,
    ledger: Arc<RwLock<Ledger>>,
}

impl ErasureLog {
    /// Opens `path` and its key, or makes both. Waits up to `patience` for another process that has it open.
    pub(super) fn open(path: &Path, key: &Path, patience: Duration) -> Result<(Self, ErasureKey), OpenError> {
        let failed = |source| OpenError::Receipts { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        lock(&file, path, patience)?;
        let (ledger, key, length) = read(&mut file, path, key, true)?;
        let ledger = Arc::new(RwLock::new(ledger));
        // A line that a crash cut off was not acted upon: the next one is written over it.
        let mut log = Self { file, length, torn: true, ledger };
        if log.length == 0 {
            let header = Line::Erasures { version: VERSION, key: key.fingerprint().to_owned() };
            log.append(&[header]).and_then(|()| files::sync_folder_of(path)).map_err(failed)?;
        }
        Ok((log, key))
    }

    /// Reads the receipts of `path` without changing it, for a restore.
    pub(super) fn load(path: &Path, key: &Path) -> Result<(Ledger, ErasureKey), OpenError> {
        let failed = |source| OpenError::Receipts { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        read(&mut file, path, key, false).map(|(ledger, key, _)| (ledger, key))
    }

    pub(super) fn ledger(&self) -> Arc<RwLock<Ledger>> {
        Arc::clone(&self.ledger)
    }

    /// Notes that everything of `user` up to `at` is to be erased, `rows` rows in all. With the id of an earlier receipt of the same user
    /// that one is begun again.
    pub(super) fn begin(&mut self, id: Uuid, user: UserHash, rows: u64, at: i64) -> io::Result<()> {
        self.append(&[Line::Pending { receipt: id, user: user.to_string(), rows, at: timestamp(at) }])?;
        self.ledger.write().unwrap_or_else(PoisonError::into_inner).begin(id, user, rows, at);
        Ok(())
    }

    /// Notes that erasures (id, rows) are done at `at`, and returns their receipts in the same order.
    pub(super) fn finish(&mut self, erasures: &[(Uuid, u64)], at: i64) -> io::Result<Vec<Receipt>> {
        let line = |(receipt, deleted): &(Uuid, u64)| Line::Done {
            receipt: *receipt,
            deleted: *deleted,
            at: timestamp(at),
        };
        self.append(&erasures.iter().map(line).collect::<Vec<_>>())?;
        let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        Ok(erasures.iter().filter_map(|(id, deleted)| ledger.finish(*id, *deleted, at)).collect())
    }

    /// Writes whole lines and syncs them; after an error none of them counts.
    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        if self.torn {
            self.file.set_len(self.length)?;
        }
        self.torn = true;
        self.file.seek(io::SeekFrom::Start(self.length))?;
        self.file.write_all(&text)?;
        self.file.sync_all()?;
        self.length += text.len() as u64;
        self.torn = false;
        Ok(())
    }
}

fn timestamp(micros: i64) -> Timestamp {
    // The store's clock starts at the system's and goes on by microseconds: far from the end of time.
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

fn lock(file: &File, path: &Path, patience: Duration) -> Result<(), OpenError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::Receipts { path: path.to_owned(), source });
            }
        }
    }
}

/// The receipts, the key, and the length of the whole lines.
fn read(
    file: &mut File,
    path: &Path,
    key: &Path,
    create_key: bool,
) -> Result<(Ledger, ErasureKey, u64), OpenError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| OpenError::Receipts { path: path.to_owned(), source })?;
    let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let key = ErasureKey::open(key, create_key && length == 0)?;
    let mut ledger = Ledger::default();
    for (index, line) in bytes[..length].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = || OpenError::ReceiptsDamaged { path: path.to_owned(), line: index + 1 };
        let line: Line = serde_json::from_slice(line).map_err(|_| damaged())?;
        match line {
            Line::Erasures { version: VERSION, key: of } if index == 0 => {
                if of != key.fingerprint() {
                    return Err(OpenError::WrongKey { path: path.to_owned() });
                }
            }
            Line::Pending { receipt, user, rows, at } if index > 0 => {
                ledger.begin(receipt, user.parse().map_err(|()| damaged())?, rows, at.as_microsecond());
            }
            Line::Done { receipt, deleted, at } if index > 0 => {
                ledger.finish(receipt, deleted, at.as_microsecond()).ok_or_else(damaged)?;
            }
            _ => return Err(damaged()),
        }
    }
    Ok((ledger, key, length as u64))
}

#[cfg(test)]
mod tests;
