//! The predictions in one SQLite file. Nothing outside this module and its children knows SQLite.
//!
//! | module | what it holds |
//! |---|---|
//! | `options` | the settings |
//! | `schema` | opening, whose file it is, migrations |
//! | `writer` | the one thread that writes: group commit |
//! | `upkeep` | what the writer does between commits: erasures, the retention period, the write-ahead log |
//! | `erase`, `scrub` | the statements of an erasure; overwriting what is left inside of pages |
//! | `receipts`, `key` | receipts of erasures in a file outside of the database; the key that they name users under |
//! | `backup`, `restore` | a copy while writes go on; a copy put back, with every erasure since |
//! | `reader` | the few threads that read |
//! | `record` | one row, and the queries for it |
//! | `reads` | many rows: filters, pages, cursors |
//! | `stats` | counting |
//! | `classes` | the classes that a prediction names |
//! | `queue` | the bounded way from async code to the threads |
//! | `health` | readiness from the writer's last outcome |
//! | `metrics` | what monitoring sees |
//! | `clock` | time that only goes forwards |
//! | `error` | SQLite's failures by what they mean |

mod backup;
mod classes;
mod clock;
mod erase;
mod error;
mod files;
mod health;
mod key;
mod metrics;
mod options;
mod queue;
mod reader;
mod reads;
mod receipts;
mod record;
mod restore;
mod schema;
mod scrub;
mod stats;
mod upkeep;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::pause;

pub use backup::{Backup, BackupError, backup_database};
pub use error::{OpenError, StoreError};
pub use options::StoreOptions;
pub use reads::{Cursor, CursorError, Filter, Page};
pub use receipts::{ErasureState, Receipt};
pub use record::{NewPrediction, Prediction, Put};
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use stats::Stats;

use clock::Clock;
use health::Health;
use key::ErasureKey;
use metrics::StoreMetrics;
use queue::{Jobs, Queue};
use reader::ReadJob;
use receipts::{ErasureLog, Ledger};
use service_kit::Readiness;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use upkeep::{ErasureReply, Upkeep};
use writer::{Incoming, PutJob, WriteJob, Writer};

/// How an erasure came out within the time that a caller may be kept waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// No byte is left.
    Done(Receipt),
    /// The rows go, and copies may still be in the files; the work goes on. The same erasure again gets this receipt.
    Pending {
        /// The receipt's id; none if the writer had no time for it yet.
        receipt_id: Option<String>,
    },
}

/// A handle to the store; cheap to clone, all clones are the same store.
///
/// [`PredictionStore::close`] ends it; else it ends with its last handle, without waiting for its threads.
#[derive(Clone)]
pub struct PredictionStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    busy_timeout: Duration,
    erasure_wait: Duration,
    writes: Queue<WriteJob>,
    write_memory: Arc<Semaphore>,
    reads: Queue<ReadJob>,
    key: ErasureKey,
    ledger: Arc<RwLock<Ledger>>,
    clock: Arc<Clock>,
    metrics: Arc<StoreMetrics>,
    backup: Mutex<()>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    readers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

impl PredictionStore {
    /// Opens the database and starts the threads: blocking, milliseconds unless a large log must be recovered.
    /// From then on a failed write holds `readiness` until writes work again.
    ///
    /// # Errors
    /// Says what is wrong with the file and what to do.
    pub fn open(options: &StoreOptions, readiness: &Readiness) -> Result<Self, OpenError> {
        let metrics = Arc::new(StoreMetrics::new().map_err(OpenError::Metrics)?);
        let (writes, write_jobs) = Queue::bounded(options.queue, &metrics.queued_writes);
        let (reads, read_jobs) = Queue::bounded(options.queue, &metrics.queued_reads);
        schema::create_folder(&options.path)?;
        // First: it keeps other processes from the database, too.
        let (log, key) = ErasureLog::open(&options.erasures, &options.erasure_key, options.busy_timeout)?;
        let opened = schema::open_for_writing(&options.path, options.busy_timeout)?;
        let ledger = log.ledger();
        let newest = erase::newest(&opened.connection).map_err(|e| schema::sqlite(&options.path, &e))?;
        let last_erasure = ledger.read().unwrap_or_else(PoisonError::into_inner).last();
        let clock = Arc::new(Clock::after(newest.max(last_erasure).unwrap_or(0)));
        let upkeep = Upkeep::new(
            log,
            key.clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            options.retain,
            opened.was_unscrubbed,
        );
        let writer = Writer {
            connection: opened.connection,
            jobs: write_jobs,
            health: Health::new(readiness.clone()),
            busy_timeout: options.busy_timeout,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            upkeep,
            retry_at: None,
        };
        let threads = Threads {
            readers: start_readers(options, read_jobs)?,
            writer: Some(start("results-writer".to_owned(), move || writer.run())?),
        };
        tracing::info!(path = %options.path.display(), schema_version = schema::VERSION, "database opened");
        let shared = Shared {
            path: options.path.clone(),
            busy_timeout: options.busy_timeout,
            erasure_wait: options.erasure_wait,
            writes,
            write_memory: Arc::new(Semaphore::new(options.queue_bytes)),
            reads,
            key,
            ledger,
            clock,
            metrics,
            backup: Mutex::new(()),
            threads: Mutex::new(threads),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stores `prediction` unless its id is taken. When this returns [`Put::Stored`], it survives a crash.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] at once when the queue is full; else why the database did not take it.
    pub async fn put(&self, prediction: NewPrediction) -> Result<Put, StoreError> {
        let mut outcomes = self.put_many(vec![prediction]).await?;
        outcomes.pop().unwrap_or(Err(StoreError::Internal))
    }

    /// Stores `predictions` in one transaction, each unless its id is taken, and returns what became of each, in their
    /// order. When this returns, what it says is stored survives a crash.
    ///
    /// # Errors
    /// As [`PredictionStore::put`]; then none of them is stored.
    pub async fn put_many(
        &self,
        predictions: Vec<NewPrediction>,
    ) -> Result<Vec<Result<Put, StoreError>>, StoreError> {
        let shared = &self.shared;
        let (reply, answer) = oneshot::channel();
        let count = predictions.len();
        let bytes: usize = predictions.iter().map(|p| p.predictions.get().len()).sum();
        let bytes = u32::try_from(bytes).map_err(|_| StoreError::TooLarge)?;
        let arrived = shared.clock.now();
        let incoming = |prediction: NewPrediction| Incoming {
            user: shared.key.hash(&prediction.user_id),
            // A clock elsewhere that is ahead must not date a prediction after an erasure that is to come.
            received_at: prediction.received_at.map_or(arrived, |at| at.as_microsecond().min(arrived)),
            prediction,
        };
        let predictions = predictions.into_iter().map(incoming).collect();
        let memory = Arc::clone(&shared.write_memory).try_acquire_many_owned(bytes);
        let submitted = memory.map_err(|_| StoreError::Overloaded).and_then(|memory| {
            shared.writes.submit(WriteJob::Put(PutJob { predictions, reply, _memory: memory }))
        });
        if let Err(error) = submitted {
            shared.metrics.count("refused", count);
            return Err(error);
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The store's time, for [`NewPrediction::received_at`] of a request that was taken in here.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.shared.clock.now()).unwrap_or(jiff::Timestamp::MAX)
    }

    /// The prediction with `request_id`.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] at once when the queue is full; else why the database could not be read.
    pub async fn get(&self, request_id: String) -> Result<Option<Prediction>, StoreError> {
        reader::read(&self.shared.reads, move |connection| record::find(connection, &request_id)).await
    }

    /// Erases all predictions of `user_id`: when this returns [`Erasure::Done`], no byte of them is in the database, the
    /// write-ahead log or the file beside them, and a receipt is on the disk. What was received before this call is
    /// erased or never stored, whatever is on its way.
    ///
    /// # Errors
    /// As [`PredictionStore::put`]; [`StoreError::ReceiptsUnwritable`] when nothing was begun.
    pub async fn erase_user(&self, user_id: String) -> Result<Erasure, StoreError> {
        let (done, answer) = oneshot::channel();
        let begun = Arc::new(OnceLock::new());
        let reply = ErasureReply { begun: Arc::clone(&begun), done };
        self.shared.writes.submit(WriteJob::EraseUser { user_id, reply })?;
        match tokio::time::timeout(self.shared.erasure_wait, answer).await {
            Ok(Ok(receipt)) => receipt.map(Erasure::Done),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Ok(Erasure::Pending { receipt_id: begun.get().map(ToString::to_string) }),
        }
    }

    /// At most `limit` receipts of erasures, newest first, and how many there are.
    pub fn receipts(&self, limit: usize) -> (Vec<Receipt>, usize) {
        self.shared.ledger.read().unwrap_or_else(PoisonError::into_inner).newest(limit)
    }

    /// Writes a consistent copy of the database to `path`, which must not exist, while writes and reads go on.
    ///
    /// # Errors
    /// Says why there is no copy; what was written of it is removed.
    pub async fn backup(&self, path: PathBuf) -> Result<Backup, BackupError> {
        let shared = Arc::clone(&self.shared);
        let copied = tokio::task::spawn_blocking(move || {
            let Ok(_one) = shared.backup.try_lock() else { return Err(BackupError::Running) };
            let backup = backup_database(&shared.path, &path, shared.busy_timeout)?;
            shared.metrics.backups.inc();
            shared.metrics.backup_seconds.set(backup.duration.as_secs_f64());
            Ok(backup)
        });
        copied.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// What monitoring sees, in Prometheus' terms.
    pub fn metrics(&self) -> Vec<prometheus::proto::MetricFamily> {
        let (shared, metrics) = (&self.shared, &self.shared.metrics);
        let size = |path: &Path| i64::try_from(files::size(path)).unwrap_or(i64::MAX);
        metrics.database_bytes.set(size(&shared.path));
        metrics.wal_bytes.set(size(&files::beside(&shared.path, "-wal")));
        metrics.registry.gather()
    }

    /// Refuses what comes from now on, finishes what was accepted, and closes the database.
    pub async fn close(self) {
        let joined = tokio::task::spawn_blocking(move || self.shared.close()).await;
        if let Err(error) = joined {
            tracing::error!(%error, "closing the database failed");
        }
    }
}

impl Shared {
    fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The writer's connection must be the last to close: it copies the write-ahead log into the database, which
        // readers may not.
        self.reads.close();
        threads.readers.into_iter().for_each(join);
        self.writes.close();
        threads.writer.into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the database has panicked");
    }
}

fn start_readers(options: &StoreOptions, jobs: Jobs<ReadJob>) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let jobs = Arc::new(Mutex::new(jobs));
    (0..options.readers)
        .map(|number| {
            let connection = schema::open_for_reading(&options.path, options.busy_timeout)?;
            let jobs = Arc::clone(&jobs);
            start(format!("results-reader-{number}"), move || reader::run(&connection, &jobs))
        })
        .collect()
}

fn start(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name).spawn(work).map_err(OpenError::Thread)
}
