//! The one thread that writes. It takes what is queued as one transaction, so that concurrent clients share its sync
//! to the disk, and answers each only after that.

use super::erase;
use super::error::StoreError;
use super::health::Health;
use super::record::{self, NewPrediction, Put};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What is asked of the writer; each is answered once, after it is durable.
pub(super) enum WriteJob {
    Put(PutJob),
    /// All predictions of a user; the answer is their number. It is done even when its caller has gone.
    EraseUser {
        user_id: String,
        reply: Reply<u64>,
    },
    /// Whatever a test wants to happen on the writer's thread.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&Connection) + Send>),
}

pub(super) struct PutJob {
    pub(super) prediction: NewPrediction,
    pub(super) reply: Reply<Put>,
    /// The job's share of the queue's memory, for as long as it lives.
    pub(super) _memory: OwnedSemaphorePermit,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Most predictions in one transaction: enough that the sync is a small part of each one's cost.
const MAX_GROUP: usize = 512;
/// Between two attempts at what could not be done at once.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a retry may keep other work waiting for readers to move on.
const RETRY_BUSY_TIMEOUT: Duration = Duration::from_millis(50);

pub(super) struct Writer {
    connection: Connection,
    jobs: Receiver<WriteJob>,
    health: Health,
    busy_timeout: Duration,
    commits: Arc<AtomicU64>,
    /// Erased data may still be in the write-ahead log.
    log_holds_erased: bool,
    retry_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        jobs: Receiver<WriteJob>,
        health: Health,
        busy_timeout: Duration,
        commits: Arc<AtomicU64>,
    ) -> Self {
        // A process that was killed may have left a log with what it had just erased: it is truncated before the
        // first job.
        let (log_holds_erased, retry_at) = (true, Some(Instant::now()));
        Self { connection, jobs, health, busy_timeout, commits, log_holds_erased, retry_at }
    }

    /// Works until the queue is closed and empty, then closes the database.
    pub(super) fn run(mut self) {
        self.retry_when_due();
        loop {
            let received = match self.retry_at {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(job) => self.work_off(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.retry_when_due();
        }
        self.close();
    }

    /// `first` and all that is queued behind it.
    fn work_off(&mut self, first: WriteJob) {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                // Nobody would learn of it, and whoever hung up may send it again.
                WriteJob::Put(put) if put.reply.is_closed() => {}
                WriteJob::Put(put) => group.push(put),
                WriteJob::EraseUser { user_id, reply } => {
                    // What was asked for before the erasure is stored before it, and so erased by it.
                    self.store(std::mem::take(&mut group));
                    self.erase(&user_id, reply);
                }
                #[cfg(test)]
                WriteJob::Run(action) => action(&self.connection),
            }
            next = if group.len() < MAX_GROUP { self.jobs.try_recv().ok() } else { None };
        }
        self.store(group);
    }

    /// One transaction for `group`. A prediction that fails by itself leaves the others as they are.
    fn store(&mut self, group: Vec<PutJob>) {
        if group.is_empty() {
            return;
        }
        match self.try_store(&group) {
            Ok(outcomes) => {
                self.succeeded();
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    // The caller may have hung up since: it is stored all the same.
                    let _ = job.reply.send(outcome);
                }
            }
            Err(error) => {
                let error = self.failed("store predictions", &error, group.len());
                for job in group {
                    let _ = job.reply.send(Err(error));
                }
            }
        }
    }

    fn try_store(&mut self, group: &[PutJob]) -> rusqlite::Result<Vec<Result<Put, StoreError>>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            outcomes.push(match record::put(&transaction, &job.prediction) {
                Ok(outcome) => Ok(outcome),
                Err(error) if fails_alone(&error) && !transaction.is_autocommit() => {
                    tracing::warn!(request_id = job.prediction.request_id, %error, "a prediction was not stored");
                    Err(StoreError::from(&error))
                }
                Err(error) => return Err(error),
            });
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    fn erase(&mut self, user_id: &str, reply: Reply<u64>) {
        let erased = match erase::delete_user(&mut self.connection, user_id) {
            Ok(count) => {
                self.succeeded();
                if count > 0 {
                    self.log_holds_erased = true;
                    if !self.truncate_log() {
                        tracing::warn!("the write-ahead log could not be truncated yet; it is tried again");
                    }
                }
                Ok(count)
            }
            Err(error) => Err(self.failed("erase a user", &error, 1)),
        };
        let _ = reply.send(erased);
    }

    /// Returns whether the write-ahead log could be truncated; if not, it is tried again.
    fn truncate_log(&mut self) -> bool {
        match erase::truncate_log(&self.connection) {
            Ok(truncated) => self.log_holds_erased = !truncated,
            Err(error) => {
                self.failed("truncate the write-ahead log", &error, 0);
            }
        }
        if self.log_holds_erased {
            self.retry_soon();
        }
        !self.log_holds_erased
    }

    fn retry_when_due(&mut self) {
        if self.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        self.set_busy_timeout(RETRY_BUSY_TIMEOUT);
        if !self.health.is_good() {
            match self.probe() {
                Ok(()) => self.succeeded(),
                // Logged when it began.
                Err(_) => self.retry_soon(),
            }
        }
        if self.log_holds_erased && self.health.is_good() {
            self.truncate_log();
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
        if let Err(error) = self.connection.busy_timeout(timeout) {
            tracing::warn!(%error, "the busy timeout was not changed");
        }
    }

    fn succeeded(&mut self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.health.set_good();
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
        if self.log_holds_erased && !self.truncate_log() {
            tracing::error!("erased data may still be in the write-ahead log: another program keeps it open");
        }
        // The last connection to close copies the log into the database and removes it.
        match self.connection.close() {
            Ok(()) => tracing::info!("database closed"),
            Err((_, error)) => tracing::warn!(%error, "the database was not closed cleanly"),
        }
    }
}

/// Whether a statement's failure says nothing about the others in its transaction: it has undone itself, and the
/// database works.
fn fails_alone(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none() || !StoreError::from(error).is_outage()
}
