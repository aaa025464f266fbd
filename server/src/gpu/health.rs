//! Which GPUs are lost: told by who watches them, asked by who uses them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called when a GPU is lost or found again; gives false when it need not be called any more.
type Watcher = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is known of the GPUs' health, by their UUIDs. Cheap to clone; all clones know the same.
#[derive(Clone, Default)]
pub struct GpuHealth(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lost: HashMap<String, Loss>,
    watchers: Vec<Watcher>,
}

struct Loss {
    reason: String,
    /// Its driver may go on answering for it, but nothing runs there until it is reset.
    until_reset: bool,
}

impl GpuHealth {
    /// Notes that nothing runs on this GPU any more.
    pub(crate) fn lost(&self, uuid: &str, reason: &str, until_reset: bool) {
        let mut state = self.state();
        let loss = Loss { reason: reason.to_owned(), until_reset };
        let known = state.lost.get(uuid).is_some_and(|known| known.until_reset || !until_reset);
        if !known {
            state.lost.insert(uuid.to_owned(), loss);
            drop(state);
            self.tell();
        }
    }

    /// Notes that its driver answers for this GPU.
    pub(crate) fn answers(&self, uuid: &str) {
        let mut state = self.state();
        if state.lost.get(uuid).is_some_and(|loss| !loss.until_reset) {
            state.lost.remove(uuid);
            drop(state);
            self.tell();
        }
    }

    /// Whether this GPU can be used, as far as is known.
    ///
    /// # Errors
    /// Why not, in words for the middle of a sentence.
    pub fn check(&self, uuid: &str) -> Result<(), String> {
        self.state().lost.get(uuid).map_or(Ok(()), |loss| Err(format!("GPU {uuid} is lost: {}", loss.reason)))
    }

    /// Calls `watcher` now, for what it opened may have been lost meanwhile, and whenever a GPU is lost or found again,
    /// until it gives false.
    pub(crate) fn watch(&self, watcher: impl Fn() -> bool + Send + Sync + 'static) {
        let watcher: Watcher = Arc::new(watcher);
        self.state().watchers.push(Arc::clone(&watcher));
        // Not under the lock, as in `tell`. One that has ended is found out when it is told next.
        watcher();
    }

    fn tell(&self) {
        // Not under the lock: who is told asks at once.
        let watchers = self.state().watchers.clone();
        let ended: Vec<Watcher> = watchers.into_iter().filter(|watcher| !watcher()).collect();
        self.state().watchers.retain(|watcher| !ended.iter().any(|ended| Arc::ptr_eq(ended, watcher)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GpuHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("GpuHealth")
            .field("lost", &state.lost.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_lost_gpu_is_told_once_and_found_again_unless_it_must_be_reset() {
        let health = GpuHealth::default();
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        health.watch(move || count.fetch_add(1, Ordering::SeqCst) < 4);
        assert_eq!((health.check("a"), told.load(Ordering::SeqCst)), (Ok(()), 1), "it looks at once");
        health.answers("a");
        health.lost("a", "no answer", false);
        health.lost("a", "no answer", false);
        assert_eq!(health.check("a"), Err("GPU a is lost: no answer".to_owned()));
        assert_eq!((health.check("b"), told.load(Ordering::SeqCst)), (Ok(()), 2));
        health.answers("a");
        assert_eq!((health.check("a"), told.load(Ordering::SeqCst)), (Ok(()), 3));
        health.lost("a", "no answer", false);
        health.lost("a", "Xid 79", true);
        health.answers("a");
        health.lost("a", "no answer", false);
        assert_eq!(health.check("a"), Err("GPU a is lost: Xid 79".to_owned()));
        // The fifth call was the last that the watcher wanted.
        assert_eq!(told.load(Ordering::SeqCst), 5);
        health.lost("b", "no answer", false);
        assert_eq!(told.load(Ordering::SeqCst), 5);
    }
}
