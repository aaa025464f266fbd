//! The predictions in one SQLite file. Nothing outside this module and its children knows SQLite.
//!
//! | module | what it holds |
//! |---|---|
//! | `schema` | opening, whose file it is, migrations |
//! | `writer` | the one thread that writes: group commit |
//! | `erase` | erasing a user from the tables and from the write-ahead log |
//! | `reader` | the few threads that read |
//! | `record` | rows, and the queries that read them |
//! | `queue` | the bounded way from async code to the threads |
//! | `health` | readiness from the writer's last outcome |
//! | `error` | SQLite's failures by what they mean |

mod erase;
mod error;
mod health;
mod queue;
mod reader;
mod record;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{OpenError, StoreError};
pub use record::{Cursor, NewPrediction, Page, Prediction, Put};

use health::Health;
use queue::Queue;
use reader::ReadJob;
use record::PageSize;
use serde::Serialize;
use service_kit::Readiness;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use writer::{PutJob, WriteJob, Writer};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The database file; created when missing, with its folder.
    pub path: PathBuf,
    /// Threads that read.
    pub readers: usize,
    /// Most writes that wait; the next is refused. As many reads may wait.
    pub queue: usize,
    /// Most memory that waiting predictions take, in bytes.
    pub queue_bytes: usize,
    /// How long a statement waits for a lock that another program holds.
    pub busy_timeout: Duration,
}

impl StoreOptions {
    /// The documented defaults for the database at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let cores = thread::available_parallelism().map_or(2, |n| n.get());
        Self {
            path: path.into(),
            readers: cores.clamp(2, 4),
            queue: 1024,
            queue_bytes: 64 << 20,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// Numbers about the store, for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Stored predictions.
    pub predictions: u64,
    /// Users who have at least one.
    pub users: u64,
    /// Size of the database file, in bytes.
    pub database_bytes: u64,
    /// Size of the write-ahead log beside it, in bytes.
    pub wal_bytes: u64,
    /// Transactions since the start; many predictions may share one.
    pub commits: u64,
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
    writes: Queue<WriteJob>,
    write_memory: Arc<Semaphore>,
    reads: Queue<ReadJob>,
    commits: Arc<AtomicU64>,
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
        let (writes, write_jobs) = Queue::bounded(options.queue);
        let (reads, read_jobs) = Queue::bounded(options.queue);
        let commits = Arc::new(AtomicU64::new(0));
        let connection = schema::open_for_writing(&options.path, options.busy_timeout)?;
        let health = Health::new(readiness.clone());
        let writer = Writer::new(connection, write_jobs, health, options.busy_timeout, Arc::clone(&commits));
        let threads = Threads {
            readers: start_readers(options, read_jobs)?,
            writer: Some(start("results-writer".to_owned(), move || writer.run())?),
        };
        tracing::info!(path = %options.path.display(), schema_version = schema::VERSION, "database opened");
        let shared = Shared {
            path: options.path.clone(),
            writes,
            write_memory: Arc::new(Semaphore::new(options.queue_bytes)),
            reads,
            commits,
            threads: Mutex::new(threads),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stores `prediction` unless its id is taken. When this returns [`Put::Stored`], it survives a crash.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] at once when the queue is full; else why the database did not take it.
    pub async fn put(&self, prediction: NewPrediction) -> Result<Put, StoreError> {
        let (reply, answer) = oneshot::channel();
        let bytes = u32::try_from(prediction.predictions.get().len()).map_err(|_| StoreError::TooLarge)?;
        let memory = Arc::clone(&self.shared.write_memory).try_acquire_many_owned(bytes);
        let _memory = memory.map_err(|_| StoreError::Overloaded)?;
        self.shared.writes.submit(WriteJob::Put(PutJob { prediction, reply, _memory }))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The prediction with `request_id`.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] at once when the queue is full; else why the database could not be read.
    pub async fn get(&self, request_id: String) -> Result<Option<Prediction>, StoreError> {
        reader::read(&self.shared.reads, move |connection| record::find(connection, &request_id)).await
    }

    /// A piece of the predictions of `user_id`, newest first: the first one, or the one that starts at `from`. No
    /// snapshot is held between pieces.
    ///
    /// # Errors
    /// As [`PredictionStore::get`].
    pub async fn page(&self, user_id: String, from: Option<Cursor>) -> Result<Page, StoreError> {
        const SIZE: PageSize = PageSize { rows: 512, bytes: 1 << 20 };
        let from = from.unwrap_or(Cursor::NEWEST);
        reader::read(&self.shared.reads, move |connection| record::page(connection, &user_id, from, SIZE))
            .await
    }

    /// Deletes all predictions of `user_id`, overwrites them, and truncates the write-ahead log, or, where readers
    /// keep it, does so as soon as they let it. Returns how many there were.
    ///
    /// # Errors
    /// As [`PredictionStore::put`].
    pub async fn erase_user(&self, user_id: String) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.writes.submit(WriteJob::EraseUser { user_id, reply })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Counts what is stored; it reads the whole index, so some tenths of a second for millions of rows.
    ///
    /// # Errors
    /// As [`PredictionStore::get`].
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let shared = Arc::clone(&self.shared);
        reader::read(&self.shared.reads, move |connection| {
            let sql = "SELECT COUNT(*), COUNT(DISTINCT user_id) FROM predictions";
            let (predictions, users) = connection
                .prepare_cached(sql)?
                .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            Ok(Stats {
                predictions: predictions.unsigned_abs(),
                users: users.unsigned_abs(),
                database_bytes: file_size(&shared.path),
                wal_bytes: file_size(&beside(&shared.path, "-wal")),
                commits: shared.commits.load(Ordering::Relaxed),
            })
        })
        .await
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

fn start_readers(options: &StoreOptions, jobs: Receiver<ReadJob>) -> Result<Vec<JoinHandle<()>>, OpenError> {
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

/// The path of one of the files that SQLite keeps beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// In bytes; 0 for a file that does not exist.
fn file_size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
