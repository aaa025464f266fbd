//! Work that would keep an async thread busy for long: JSON and base64 of tens of megabytes, and their SHA-256.
//!
//! A photo of a few hundred kilobytes is decoded and hashed in well under a millisecond: less than a thread switch
//! and the wake-ups around it are worth, so small work runs where it is. A body of 40 MB takes a tenth of a second,
//! and two of them would stop every other request of a two-core server: large work goes to blocking threads, as many
//! at once as there are cores (more would only share them), and only so many may wait.

use crate::Error;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes up to which work runs on the async thread itself: at the slowest step's few hundred MB/s, under a millisecond.
const INLINE_BYTES: usize = 256 << 10;
/// Large bodies that may wait for a thread; one more is answered [`Error::Busy`].
const WAITING: usize = 64;
/// A hint for clients: the largest bodies take about a tenth of a second each.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs work on bytes where it disturbs no other request; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Offload {
    /// One permit per piece of work that runs or waits.
    places: Arc<Semaphore>,
    /// One permit per piece of work that runs.
    threads: Arc<Semaphore>,
}

impl Offload {
    pub(crate) fn new() -> Self {
        Self::with(available_parallelism().map_or(1, usize::from), WAITING)
    }

    fn with(threads: usize, waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(threads + waiting)),
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Runs `work`, which goes through about `bytes` bytes. Work whose caller is gone before it began is not run.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if bytes <= INLINE_BYTES {
            return Ok(work());
        }
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::Busy { retry_after: RETRY_AFTER })?;
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| Error::Stopping)?;
        let job = tokio::task::spawn_blocking(move || {
            // The permits go with the work: a caller that hangs up does not end what has begun.
            let _permits = (place, thread);
            work()
        });
        job.await
            .map_err(|error| Error::Internal { detail: format!("a task of feature-service failed: {error}") })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::mpsc;

    const LARGE: usize = INLINE_BYTES + 1;

    #[tokio::test]
    async fn small_work_stays_and_large_work_leaves_the_thread() {
        let offload = Offload::new();
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        assert_eq!(offload.run(10, thread).await.unwrap(), here);
        assert_ne!(offload.run(LARGE, thread).await.unwrap(), here);
    }

    #[tokio::test]
    async fn one_too_many_is_told_to_come_back_and_places_are_given_back() {
        let offload = Offload::with(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let offload = offload.clone();
            async move { offload.run(LARGE, move || gate.recv()).await }
        });
        let waiting = tokio::spawn({
            let offload = offload.clone();
            async move { offload.run(LARGE, || ()).await }
        });
        while offload.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(offload.run(LARGE, || ()).await, Err(Error::Busy { .. })));
        open.send(()).unwrap();
        running.await.unwrap().unwrap().unwrap();
        waiting.await.unwrap().unwrap();
        assert!(offload.run(LARGE, || ()).await.is_ok());
    }
}
