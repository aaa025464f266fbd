//! A few threads that read, each with a connection of its own: in the write-ahead log's mode they wait neither for the
//! writer nor for one another.

use super::error::StoreError;
use super::queue::{Jobs, Queue};
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// A query and where its answer goes.
pub(super) type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// Works until the queue is closed and empty. All readers take turns at `jobs`.
pub(super) fn run(connection: &Connection, jobs: &Arc<Mutex<Jobs<ReadJob>>>) {
    loop {
        // One reader waits for a job with the lock; the others wait for the lock.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        match job {
            Ok(job) => job(connection),
            Err(_) => return,
        }
    }
}

/// Runs `query` on a reader's thread.
pub(super) async fn read<T: Send + 'static>(
    queue: &Queue<ReadJob>,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    queue.submit(Box::new(move |connection| {
        if reply.is_closed() {
            return;
        }
        let result = query(connection).map_err(|error| {
            tracing::error!(%error, "a query failed");
            StoreError::from(&error)
        });
        // The caller may have hung up since.
        let _ = reply.send(result);
    }))?;
    answer.await.unwrap_or(Err(StoreError::Closed))
}
