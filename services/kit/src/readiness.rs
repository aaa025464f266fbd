//! Readiness as a latch: each part holds it until the part can do its work.
//!
//! ```
//! let readiness = service_kit::Readiness::new();
//! let warming = readiness.hold("model vehicle-detector");
//! assert!(!readiness.is_ready());
//! drop(warming);
//! assert!(readiness.is_ready());
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Whether a service can do its work; cheap to clone, all clones are the same latch.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Names of what is being waited for, with a number that keeps two of one name apart.
    holds: Mutex<Holds>,
    ready: watch::Sender<bool>,
    open: AtomicBool,
}

#[derive(Debug, Default)]
struct Holds {
    next: u64,
    open: BTreeMap<u64, String>,
}

/// Keeps a [`Readiness`] from being ready for as long as it lives.
#[derive(Debug)]
#[must_use = "readiness is held only as long as this value lives"]
pub struct Hold {
    id: u64,
    shared: Arc<Shared>,
}

impl Readiness {
    /// A latch that nobody holds: ready.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                holds: Mutex::default(),
                ready: watch::Sender::new(true),
                open: AtomicBool::new(false),
            }),
        }
    }

    /// Makes the service unready until the returned value is dropped. `what` is shown to those who ask why.
    pub fn hold(&self, what: impl Into<String>) -> Hold {
        let id = self.shared.change(|holds| {
            let id = holds.next;
            holds.next += 1;
            holds.open.insert(id, what.into());
            id
        });
        Hold { id, shared: Arc::clone(&self.shared) }
    }

    /// Whether nothing is being waited for.
    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// What is being waited for, oldest first.
    pub fn waiting_for(&self) -> Vec<String> {
        let holds = self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.open.values().cloned().collect()
    }

    /// Returns when the service is ready; at once when it is.
    pub async fn wait_ready(&self) {
        let mut changes = self.watch();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = changes.wait_for(|ready| *ready).await;
    }

    /// Notes that calls may come from now on, ready or not: a listener for them is open.
    pub fn opened(&self) {
        self.shared.open.store(true, Ordering::Release);
    }

    /// Whether calls may have come: it was said to be [open](Self::opened). Who stops has to give those
    /// who call time to notice.
    pub fn has_opened(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Follows the readiness: `true` is ready.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Holds) -> T) -> T {
        // The map is whole after a panic elsewhere: each change is a single insertion or removal.
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut holds);
        // Under the lock, so that two changes cannot report in the wrong order.
        self.ready.send_replace(holds.open.is_empty());
        result
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.change(|holds| holds.open.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_part_is() {
        let readiness = Readiness::new();
        let first = readiness.hold("a model");
        let second = readiness.hold("a model");
        drop(first);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting_for(), ["a model"]);
        drop(second);
        assert!(readiness.is_ready());
        let _draining = readiness.hold("draining");
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_hold_does() {
        let readiness = Readiness::new();
        let hold = readiness.hold("warm-up");
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        drop(hold);
        waiter.await.expect("the waiter ends");
    }
}
