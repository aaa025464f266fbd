//! Work that would keep an async thread busy for long: JSON of megabytes, compression, and typed elements.
//!
//! Small work runs where it is: a thread switch would cost more. Large work goes to blocking threads, as many at once
//! as there are cores (more would only share them), and only so many may wait.

use crate::error::ServingError;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes up to which work runs on the async thread itself: at 100 MB/s, well under a millisecond.
const INLINE_BYTES: usize = 64 << 10;
/// Large pieces that may wait for a thread; one more is refused.
const WAITING: usize = 64;
/// A hint for clients: the largest pieces take a few tenths of a second.
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
    ///
    /// # Errors
    /// `Overloaded` when too much waits already, `Unavailable` when the server is stopping.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServingError> {
        if bytes <= INLINE_BYTES {
            return Ok(work());
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ServingError::Overloaded {
            detail: "Too many large bodies are being read or written".to_owned(),
            retry_after: RETRY_AFTER,
        })?;
        let stopping = || ServingError::Unavailable("The server is stopping.".to_owned());
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| stopping())?;
        let job = tokio::task::spawn_blocking(move || {
            // The permits go with the work: a caller that hangs up does not end what has begun.
            let _permits = (place, thread);
            work()
        });
        job.await.map_err(|error| {
            if error.is_panic() {
                ServingError::Internal("The request was lost; the server's log says why.".to_owned())
            } else {
                stopping()
            }
        })
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
    async fn one_too_many_is_refused_and_places_are_given_back() {
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
        assert!(matches!(offload.run(LARGE, || ()).await, Err(ServingError::Overloaded { .. })));
        open.send(()).unwrap();
        running.await.unwrap().unwrap().unwrap();
        waiting.await.unwrap().unwrap();
        assert!(offload.run(LARGE, || ()).await.is_ok());
    }
}
