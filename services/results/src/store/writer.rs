//! The one thread that writes. It takes what is queued as one transaction, so that concurrent clients share its sync
//! to the disk, and answers each only after that. Between transactions it does the small steps of [`Upkeep`].

use super::clock::Clock;
use super::error::StoreError;
use super::health::Health;
use super::key::UserHash;
use super::metrics::StoreMetrics;
use super::queue::Jobs;
use super::record::{self, NewPrediction, Put};
use super::upkeep::{ErasureReply, Upkeep};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What is asked of the writer; each is answered once, after it is durable.
pub(super) enum WriteJob {
    Put(PutJob),
    /// All predictions of a user. It is done even when its caller has gone.
    EraseUser {
        user_id: String,
        reply: ErasureReply,
    },
    /// Whatever a test wants to happen on the writer's thread.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&Connection) + Send>),
}

/// Predictions that are stored in one transaction, each with an outcome of its own.
pub(super) struct PutJob {
    pub(super) predictions: Vec<Incoming>,
    pub(super) reply: oneshot::Sender<Result<Vec<Outcome>, StoreError>>,
    /// The job's share of the queue's memory, for as long as it lives.
    pub(super) _memory: OwnedSemaphorePermit,
}

/// A prediction with what the erasures of its user are compared with.
pub(super) struct Incoming {
    pub(super) prediction: NewPrediction,
    pub(super) user: UserHash,
    /// Microseconds since 1970.
    pub(super) received_at: i64,
}

/// What became of one prediction.
pub(super) type Outcome = Result<Put, StoreError>;

/// Most predictions in one transaction, save for an array that is longer by itself: enough that the sync is a small part
/// of each one's cost.
const MAX_GROUP: usize = 512;
/// Most erasures that are begun before steps are taken to carry them out. Each is synced by itself: who asks faster than that would
/// keep the writer from ever taking one.
const MAX_ERASURES: usize = 8;
/// Between two attempts at what could not be done at once.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long an attempt or a step of the upkeep may wait for other programs.
const SHORT_BUSY_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a store that is closed goes on with erasures; what is left is done at the next start.
const CLOSING_TIME: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) jobs: Jobs<WriteJob>,
    pub(super) health: Health,
    pub(super) busy_timeout: Duration,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<StoreMetrics>,
    pub(super) upkeep: Upkeep,
    /// When to see whether a failed database works again.
    pub(super) retry_at: Option<Instant>,
}

impl Writer {
    /// Works until the queue is closed and empty, then closes the database.
    pub(super) fn run(mut self) {
        // A process that was killed may have left a log with what it had just erased: cutting it comes first.
        self.work_between();
        while let Some(received) = self.wait() {
            let begun = received.map_or(0, |job| self.work_off(job));
            // A step for the rows of each, and one more, or none would ever come to its end while others are asked for.
            for _ in 0..=begun {
                self.work_between();
            }
        }
        self.close();
    }

    /// The next job; none when something else is due. `None` when the queue is closed and empty.
    fn wait(&mut self) -> Option<Option<WriteJob>> {
        let due = match self.retry_at {
            Some(retry) => Some(retry),
            None => self.upkeep.due(),
        };
        let patience = due.map(|at| at.saturating_duration_since(Instant::now()));
        match patience {
            None => self.jobs.next().ok().map(Some),
            Some(Duration::ZERO) => match self.jobs.try_next() {
                Ok(job) => Some(Some(job)),
                Err(TryRecvError::Empty) => Some(None),
                Err(TryRecvError::Disconnected) => None,
            },
            Some(patience) => match self.jobs.next_within(patience) {
                Ok(job) => Some(Some(job)),
                Err(RecvTimeoutError::Timeout) => Some(None),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        }
    }

    /// `first` and what is queued behind it, as far as it may be done at once. Gives how many erasures were begun.
    fn work_off(&mut self, first: WriteJob) -> usize {
        let (mut group, mut predictions, mut erasures) = (Vec::new(), 0, 0);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                // Nobody would learn of it, and whoever hung up may send it again.
                WriteJob::Put(put) if put.reply.is_closed() => {}
                WriteJob::Put(put) => {
                    predictions += put.predictions.len();
                    group.push(put);
                }
                WriteJob::EraseUser { user_id, reply } => {
                    // What was asked for before the erasure is stored before it, and so erased by it.
                    self.store(std::mem::take(&mut group));
                    predictions = 0;
                    erasures += 1;
                    self.upkeep.erase(&self.connection, user_id, reply);
                }
                #[cfg(test)]
                WriteJob::Run(action) => action(&self.connection),
            }
            let goes_on = predictions < MAX_GROUP && erasures < MAX_ERASURES;
            next = goes_on.then(|| self.jobs.try_next().ok()).flatten();
        }
        self.store(group);
        erasures
    }

    /// One transaction for `group`. A prediction that fails by itself leaves the others as they are.
    fn store(&mut self, group: Vec<PutJob>) {
        if group.is_empty() {
            return;
        }
        let began = Instant::now();
        let predictions = group.iter().map(|job| job.predictions.len()).sum();
        match self.try_store(&group) {
            Ok(outcomes) => {
                self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
                self.metrics.commit_size.observe(predictions as f64);
                self.health.set_good();
                for (job, outcomes) in group.into_iter().zip(outcomes) {
                    outcomes.iter().for_each(|outcome| self.metrics.count(label(outcome), 1));
                    // The caller may have hung up since: it is stored all the same.
                    let _ = job.reply.send(Ok(outcomes));
                }
            }
            Err(error) => {
                self.metrics.count("failed", predictions);
                self.upkeep.log_may_hold_what_failed();
                let error = self.failed("store predictions", &error, group.len());
                for job in group {
                    let _ = job.reply.send(Err(error));
                }
            }
        }
    }

    fn try_store(&mut self, group: &[PutJob]) -> rusqlite::Result<Vec<Vec<Outcome>>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut all = Vec::with_capacity(group.len());
        for job in group {
            let mut outcomes = Vec::with_capacity(job.predictions.len());
            for incoming in &job.predictions {
                if self.upkeep.erased_at(&incoming.user).is_some_and(|at| incoming.received_at <= at) {
                    outcomes.push(Ok(Put::Erased));
                    continue;
                }
                outcomes.push(match record::put(&transaction, &incoming.prediction, self.clock.now()) {
                    Ok(outcome) => Ok(outcome),
                    Err(error) if fails_alone(&error) && !transaction.is_autocommit() => {
                        let request_id = &incoming.prediction.request_id;
                        tracing::warn!(request_id, %error, "a prediction was not stored");
                        Err(StoreError::from(&error))
                    }
                    Err(error) => return Err(error),
                });
            }
            all.push(outcomes);
        }
        transaction.commit()?;
        Ok(all)
    }

    /// What is due besides the jobs: one piece of it.
    fn work_between(&mut self) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            self.set_busy_timeout(SHORT_BUSY_TIMEOUT);
            match self.probe() {
                Ok(()) => self.health.set_good(),
                // Logged when it began.
                Err(_) => self.retry_soon(),
            }
            self.set_busy_timeout(self.busy_timeout);
        }
        if self.health.is_good() && self.upkeep.due().is_some_and(|at| at <= Instant::now()) {
            self.keep_up();
        }
    }

    fn keep_up(&mut self) {
        self.set_busy_timeout(SHORT_BUSY_TIMEOUT);
        if let Err(error) = self.upkeep.step(&mut self.connection) {
            // Another program's lock passes; it is tried again.
            if StoreError::from(&error) == StoreError::Locked {
                tracing::debug!(%error, "a step of the upkeep has to wait");
            } else {
                self.failed("erase predictions", &error, 0);
            }
        }
        self.set_busy_timeout(self.busy_timeout);
    }

    /// A durable write that changes nothing.
    fn probe(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = super::schema::version(&transaction)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()
    }

    fn set_busy_timeout(&self, timeout: Duration) {
        if let Err(error) = self.connection.busy_timeout(timeout.min(self.busy_timeout)) {
            tracing::warn!(%error, "the busy timeout was not changed");
        }
    }

    /// Logs a failure, once for all whom it meets, and returns what they are told.
    fn failed(&mut self, action: &str, error: &rusqlite::Error, requests: usize) -> StoreError {
        let told = StoreError::from(error);
        tracing::error!(%error, requests, "the database could not {action}");
        if told.is_outage() {
            self.health.set_bad(told);
            self.retry_soon();
        }
        told
    }

    fn retry_soon(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    fn close(mut self) {
        let deadline = Instant::now() + CLOSING_TIME;
        while self.upkeep.has_work() && self.health.is_good() && Instant::now() < deadline {
            if let Some(pause) = self.upkeep.due().map(|at| at.saturating_duration_since(Instant::now())) {
                std::thread::sleep(pause);
            }
            self.keep_up();
        }
        if self.upkeep.has_work() {
            tracing::warn!("an erasure is not done: the next start goes on with it");
        }
        // The last connection to close copies the log into the database and removes it.
        match self.connection.close() {
            Ok(()) => tracing::info!("database closed"),
            Err((_, error)) => tracing::warn!(%error, "the database was not closed cleanly"),
        }
    }
}

fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(Put::Stored { .. }) => "stored",
        Ok(Put::Repeated(_)) => "repeated",
        Ok(Put::Exists) => "exists",
        Ok(Put::Erased) => "erased",
        Err(_) => "failed",
    }
}

/// Whether a statement's failure says nothing about the others in its transaction: it has undone itself, and the
/// database works.
fn fails_alone(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none() || !StoreError::from(error).is_outage()
}
