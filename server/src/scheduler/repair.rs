//! What is broken, and when it is tried again.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::shared::{Shared, lock};

/// Time until a broken instance is tried again first; each failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest time between two tries. What is wrong may have been mended for so long before it is seen.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What is logged when a try fails.
pub(crate) const NOT_REBUILT: &str = "A broken instance could not be rebuilt; it is tried again";

/// Times between tries to make a new backend.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST_RETRY)
    }

    /// How long to wait for the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (2 * wait).min(LAST_RETRY);
        wait
    }
}

impl Shared {
    /// Rows that a batch may have now.
    pub(crate) fn most_rows(&self) -> usize {
        lock(&self.state).policy.max_batch_size()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.state).stopping
    }
}

/// The engine with all cores, shared by the instances: the policy lets one of them run at a time.
pub(crate) struct WideEngine {
    pub(crate) engine: Engine,
    /// There while it has no working backend: when it is tried again. Its batches run on narrow ones meanwhile.
    broken: Option<(Instant, Backoff)>,
}

impl WideEngine {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, broken: None }
    }

    /// The engine, unless it is broken and cannot be made anew now.
    pub(crate) fn usable<'a>(wide: &'a Mutex<Self>, shared: &Shared) -> Option<MutexGuard<'a, Self>> {
        let mut wide = lock(wide);
        let Self { engine, broken } = &mut *wide;
        if let Some((again, backoff)) = broken {
            if Instant::now() < *again {
                return None;
            }
            match engine.rebuild(shared.most_rows(), &|| true) {
                Ok(_) => {
                    *broken = None;
                    shared.wide_broken(None);
                }
                Err(detail) => {
                    *again = Instant::now() + backoff.next();
                    shared.log_failure(NOT_REBUILT, &detail);
                    shared.wide_broken(Some(&detail));
                    return None;
                }
            }
        }
        Some(wide)
    }

    /// Notes that it failed, and could not be made anew.
    pub(crate) fn broke(&mut self, shared: &Shared) {
        let mut backoff = Backoff::new();
        self.broken = Some((Instant::now() + backoff.next(), backoff));
        shared.wide_broken(Some(self.engine.not_rebuilt()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_and_never_stop() {
        let mut backoff = Backoff::new();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
