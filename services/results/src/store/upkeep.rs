//! What the writer does besides storing: erasures, the retention period, and what both need so that no byte is left.
//!
//! An erasure goes through these states; its receipt is `pending` from the first and `done` after the last:
//!
//! 1. `deleting`: its rows are deleted, in transactions of some hundred rows.
//! 2. `waiting`: they are gone, and a pass over the files has to begin that starts after that.
//! 3. in a [`Pass`]: the pages are scrubbed, the write-ahead log is copied into the database and cut to no bytes.
//!
//! [`Upkeep::step`] does one small piece of it, so that writers wait for milliseconds and never for the whole. All
//! erasures that wait when a pass begins share it.

use super::clock::Clock;
use super::erase;
use super::error::StoreError;
use super::key::{ErasureKey, UserHash};
use super::metrics::StoreMetrics;
use super::receipts::{ErasureLog, Receipt};
use super::scrub;
use rusqlite::Connection;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Rows that one step deletes.
const ROWS_A_STEP: usize = 500;
/// After a reader kept the log from being cut.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// After the receipts could not be written, or the database failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Who waits for an erasure.
pub(super) struct ErasureReply {
    /// Gets the receipt's id as soon as there is one.
    pub(super) begun: Arc<OnceLock<Uuid>>,
    pub(super) done: oneshot::Sender<Result<Receipt, StoreError>>,
}

struct Erasure {
    id: Uuid,
    user: UserHash,
    /// None after a restart, until it was looked for: receipts do not hold it.
    user_id: Option<String>,
    /// What was stored up to this time goes.
    at: i64,
    /// Rows in all, and those of them that this process has deleted.
    rows: u64,
    deleted: u64,
    replies: Vec<ErasureReply>,
}

/// Going over the files once.
struct Pass {
    erasures: Vec<Erasure>,
    /// The page that the next scrub step begins with; none when there is nothing more to scrub.
    next_page: Option<u32>,
    log_is_cut: bool,
}

struct Retention {
    period: Duration,
    every: Duration,
    next: Instant,
    /// Rows deleted since the last pass began.
    deleted: u64,
    running: bool,
}

/// The state of all that is going on; the writer owns it.
pub(super) struct Upkeep {
    log: ErasureLog,
    key: ErasureKey,
    clock: Arc<Clock>,
    metrics: Arc<StoreMetrics>,
    deleting: VecDeque<Erasure>,
    waiting: Vec<Erasure>,
    pass: Option<Pass>,
    retention: Option<Retention>,
    /// Rows were deleted since the last pass began: pages may hold copies of them.
    unscrubbed: bool,
    /// The log may hold pages as they were before a deletion, without any erasure that waits for it.
    uncut: bool,
    /// Finished after its caller had gone: the user's next erasure gets the same receipt.
    unclaimed: HashMap<UserHash, (Uuid, u64)>,
    not_before: Option<Instant>,
    warned_busy: bool,
}

impl Upkeep {
    /// Takes up what a crash has left: erasures that are not done, and a log with what was just erased. `unscrubbed`
    /// says that earlier versions may have left copies in pages.
    pub(super) fn new(
        log: ErasureLog,
        key: ErasureKey,
        clock: Arc<Clock>,
        metrics: Arc<StoreMetrics>,
        retain: Option<Duration>,
        unscrubbed: bool,
    ) -> Self {
        let pending = log.ledger().read().map(|ledger| ledger.pending()).unwrap_or_default();
        let resumed = |e: super::receipts::PendingErasure| Erasure {
            id: e.id,
            user: e.user,
            user_id: None,
            at: e.at,
            rows: e.rows,
            deleted: 0,
            replies: Vec::new(),
        };
        let deleting: VecDeque<_> = pending.into_iter().map(resumed).collect();
        let retention = retain.map(|period| Retention {
            period,
            every: (period / 24).clamp(Duration::from_secs(1), Duration::from_secs(3600)),
            next: Instant::now(),
            deleted: 0,
            running: false,
        });
        Self {
            unscrubbed: unscrubbed || !deleting.is_empty() || retention.is_some(),
            uncut: true,
            log,
            key,
            clock,
            metrics,
            deleting,
            waiting: Vec::new(),
            pass: None,
            retention,
            unclaimed: HashMap::new(),
            not_before: None,
            warned_busy: false,
        }
    }

    /// When `user` was last erased.
    pub(super) fn erased_at(&self, user: &UserHash) -> Option<i64> {
        self.log.ledger().read().ok()?.erased_at(user)
    }

    /// Something was written that is not stored: the log may hold it until it is cut.
    pub(super) fn log_may_hold_what_failed(&mut self) {
        self.uncut = true;
    }

    /// Whether a step would do something now or later without being asked again.
    pub(super) fn has_work(&self) -> bool {
        let retaining = self.retention.as_ref().is_some_and(|r| r.running);
        !self.deleting.is_empty()
            || !self.waiting.is_empty()
            || self.pass.is_some()
            || self.uncut
            || retaining
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let retention = self.retention.as_ref().map(|r| r.next);
        let due = if self.has_work() { Some(Instant::now()) } else { retention };
        due.map(|due| self.not_before.map_or(due, |at| due.max(at)))
    }

    /// Begins the erasure of a user, or joins the one that is going on. Notes it before anything is deleted.
    pub(super) fn erase(&mut self, connection: &Connection, user_id: String, reply: ErasureReply) {
        let (user, at) = (self.key.hash(&user_id), self.clock.now());
        let (joined, unclaimed) = (self.active(&user), self.unclaimed.get(&user).copied());
        let (id, deleted) = match (joined.map(|e| (e.id, e.deleted)), unclaimed) {
            (Some(known), _) | (None, Some(known)) => known,
            (None, None) => (Uuid::new_v4(), 0),
        };
        let joins = joined.is_some();
        let rows = match self.note(connection, &user_id, (id, user, at), deleted) {
            Ok(rows) => rows,
            Err(error) => {
                let _ = reply.done.send(Err(error));
                return;
            }
        };
        let _ = reply.begun.set(id);
        self.unclaimed.remove(&user);
        if joins {
            self.join(&user, at, rows, reply);
        } else {
            let (user_id, rows) = (Some(user_id), deleted + rows);
            self.deleting.push_back(Erasure { id, user, user_id, at, rows, deleted, replies: vec![reply] });
        }
        self.metrics.erasures_pending.set(self.pending() as i64);
        tracing::info!(receipt_id = %id, "an erasure was begun");
    }

    /// Writes down that an erasure begins, and returns how many rows it is to delete now.
    fn note(
        &mut self,
        connection: &Connection,
        user_id: &str,
        (id, user, at): (Uuid, UserHash, i64),
        deleted: u64,
    ) -> Result<u64, StoreError> {
        let rows = erase::count(connection, user_id, at).map_err(|error| {
            tracing::error!(%error, "the database could not be read for an erasure");
            StoreError::from(&error)
        })?;
        self.log.begin(id, user, deleted + rows, at).map_err(|error| {
            tracing::error!(%error, "the erasure receipts cannot be written");
            StoreError::ReceiptsUnwritable
        })?;
        Ok(rows)
    }

    fn active(&self, user: &UserHash) -> Option<&Erasure> {
        let passing = self.pass.iter().flat_map(|pass| &pass.erasures);
        let mut all = self.deleting.iter().chain(&self.waiting).chain(passing);
        all.find(|erasure| erasure.user == *user)
    }

    fn pending(&self) -> usize {
        self.deleting.len() + self.waiting.len() + self.pass.as_ref().map_or(0, |pass| pass.erasures.len())
    }

    /// Adds a caller to an erasure that is going on. If there are new rows, it begins again; if not, it goes on, so that
    /// a caller who asks again and again does not hold it up.
    fn join(&mut self, user: &UserHash, at: i64, rows: u64, reply: ErasureReply) {
        let passing = self.pass.iter_mut().flat_map(|pass| &mut pass.erasures);
        let mut all = self.deleting.iter_mut().chain(&mut self.waiting).chain(passing);
        if let Some(erasure) = all.find(|erasure| erasure.user == *user) {
            erasure.at = at;
            erasure.rows = erasure.rows.max(erasure.deleted + rows);
            // Callers who ask again and again have given up before.
            erasure.replies.retain(|reply| !reply.done.is_closed());
            erasure.replies.push(reply);
        }
        if rows == 0 {
            return;
        }
        let of_user = |erasure: &mut Erasure| erasure.user == *user;
        let mut again: Vec<_> = self.waiting.extract_if(.., of_user).collect();
        if let Some(pass) = &mut self.pass {
            again.extend(pass.erasures.extract_if(.., of_user));
        }
        self.deleting.extend(again);
    }

    /// Does the next small piece of work. After an error the same piece is due again, a little later.
    pub(super) fn step(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        self.not_before = None;
        let done = self.try_step(connection);
        if done.is_err() {
            self.not_before = Some(Instant::now() + FAILED_PAUSE);
        }
        done
    }

    fn try_step(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        if !self.deleting.is_empty() {
            return self.delete_rows(connection);
        }
        if self.retention.as_ref().is_some_and(|r| r.running || r.next <= Instant::now()) {
            return self.delete_old(connection);
        }
        if self.pass.is_none() {
            if !self.uncut && self.waiting.is_empty() {
                return Ok(());
            }
            let next_page = self.unscrubbed.then_some(1);
            self.unscrubbed = false;
            self.uncut = false;
            let erasures = std::mem::take(&mut self.waiting);
            self.pass = Some(Pass { erasures, next_page, log_is_cut: false });
        }
        let Some(pass) = &mut self.pass else { return Ok(()) };
        if let Some(page) = pass.next_page {
            let began = Instant::now();
            pass.next_page = scrub::step(connection, page)?;
            self.metrics.scrub_step_seconds.observe(began.elapsed().as_secs_f64());
        } else if !pass.log_is_cut {
            pass.log_is_cut = erase::truncate_log(connection)?;
            if !pass.log_is_cut {
                self.not_before = Some(Instant::now() + BUSY_PAUSE);
                if !std::mem::replace(&mut self.warned_busy, true) {
                    tracing::warn!(
                        "a reader keeps the write-ahead log: it is cut as soon as that is possible"
                    );
                }
            }
        } else {
            self.finish();
        }
        Ok(())
    }

    fn delete_rows(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(erasure) = self.deleting.front_mut() else { return Ok(()) };
        if erasure.user_id.is_none() {
            erasure.user_id = erase::find_user(connection, &self.key, &erasure.user)?;
        }
        let deleted = match &erasure.user_id {
            Some(user_id) => erase::delete_user(connection, user_id, erasure.at, ROWS_A_STEP)?,
            None => 0,
        };
        erasure.deleted += deleted as u64;
        self.unscrubbed |= deleted > 0;
        if deleted < ROWS_A_STEP {
            self.waiting.extend(self.deleting.pop_front());
        }
        Ok(())
    }

    fn delete_old(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(retention) = &mut self.retention else { return Ok(()) };
        let period = i64::try_from(retention.period.as_micros()).unwrap_or(i64::MAX);
        let deleted = erase::delete_older(connection, self.clock.now().saturating_sub(period), ROWS_A_STEP)?;
        retention.running = deleted == ROWS_A_STEP;
        retention.deleted += deleted as u64;
        self.metrics.retired.inc_by(deleted as u64);
        self.unscrubbed |= deleted > 0;
        if !retention.running {
            retention.next = Instant::now() + retention.every;
            if retention.deleted > 0 {
                tracing::info!(
                    rows = retention.deleted,
                    "predictions past the retention period were deleted"
                );
                retention.deleted = 0;
                self.uncut = true;
            }
        }
        Ok(())
    }

    /// Writes the receipts, and then answers.
    fn finish(&mut self) {
        let Some(pass) = &self.pass else { return };
        self.warned_busy = false;
        if pass.erasures.is_empty() {
            self.pass = None;
            return;
        }
        let erased: Vec<_> = pass.erasures.iter().map(|erasure| (erasure.id, erasure.rows)).collect();
        let receipts = match self.log.finish(&erased, self.clock.now()) {
            Ok(receipts) => receipts,
            Err(error) => {
                tracing::error!(%error, "the erasure receipts cannot be written; it is tried again");
                self.not_before = Some(Instant::now() + FAILED_PAUSE);
                return;
            }
        };
        let erasures = self.pass.take().map(|pass| pass.erasures).unwrap_or_default();
        self.metrics.erasures_pending.set(self.pending() as i64);
        for (erasure, receipt) in erasures.into_iter().zip(receipts) {
            // Not whose: the line would be what is left of the person.
            tracing::info!(receipt_id = %erasure.id, deleted_count = erasure.rows, "a user was erased");
            self.metrics.erasures.inc();
            let answered = erasure.replies.into_iter().map(|r| r.done.send(Ok(receipt.clone())).is_ok());
            // Every caller is answered: no short cut at the first.
            if !answered.fold(false, |any, this| any | this) {
                self.unclaimed.insert(erasure.user, (erasure.id, erasure.rows));
            }
        }
    }
}
