//! Stopping in two steps, so that no request that was accepted is lost.
//!
//! 1. **Draining**: the service says that it is not ready; everything is still accepted and served. Load balancers
//!    need this time (`--shutdown-delay`) to send new requests elsewhere.
//! 2. **Stopping**: no new connections; what is open is served to its end, then the service returns.
//!
//! The caller owns the signal: services are handed a [`Shutdown`] and never look at signals themselves.

use std::time::Duration;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Tells a service when to drain and when to stop; cheap to clone, all clones are the same signal.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
}

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// First step: become unready, serve on.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Second step: accept nothing new, finish what is open. Implies [`Shutdown::drain`].
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Both steps with `delay` between them.
    pub async fn drain_then_stop(&self, delay: Duration) {
        self.drain();
        tokio::time::sleep(delay).await;
        self.stop();
    }

    /// Whether the first step was taken.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Whether the second step was taken.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Returns when the first step is taken.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Returns when the second step is taken.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// [`Shutdown::stopping`] as a future of its own, for servers that want to own it.
    pub fn stopping_owned(&self) -> WaitForCancellationFutureOwned {
        self.stopping.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_implies_draining() {
        let shutdown = Shutdown::new();
        let seen_by_service = shutdown.clone();
        assert!(!seen_by_service.is_draining());
        shutdown.stop();
        seen_by_service.draining().await;
        seen_by_service.stopping().await;
        assert!(seen_by_service.is_draining() && seen_by_service.is_stopping());
    }

    #[tokio::test(start_paused = true)]
    async fn the_delay_lies_between_the_steps() {
        let shutdown = Shutdown::new();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drain_then_stop(Duration::from_secs(5)).await }
        });
        shutdown.draining().await;
        assert!(!shutdown.is_stopping());
        task.await.expect("no panic");
        assert!(shutdown.is_stopping());
    }
}
