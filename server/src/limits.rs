//! The budget of memory that requests hold together (`--max-inflight-bytes`).
//!
//! Each call has a [`Permit`]. It grows as the call's body arrives, when its message is decoded and while the sandbox
//! works for it, and shrinks to the size of the answer once that is made. It ends when the answer has been sent, or
//! the call is dropped, on whatever path: it is given back by `Drop` alone.
//!
//! A call whose permit cannot grow is refused; it never waits. Calls that wait for each other's memory could wait for
//! ever, while a refused one gives its share to the others: of many calls that together want too much, always some
//! come to their end. New calls are refused earlier than that ([`InFlight::is_crowded`]), so that those which have
//! begun have room to end. And a body that stops coming is not waited for ([`Progress`]), nor an answer that is not read
//! ([`Unread`]), or callers who only begin would hold for ever what there is.

use crate::error::ServingError;
use crate::scheduler::OutputMeter;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

mod body;
mod metrics;
mod progress;
mod unread;

pub(crate) use body::{CountedBody, HeldBody};
pub(crate) use metrics::{EarlyRefusals, Reason, collector};
pub(crate) use progress::{Due, HeldBack, HeldStream, MESSAGE_PREFIX_BYTES, Progress};
pub(crate) use unread::Unread;

/// A hint for clients: what holds the memory is done, or refused, about then.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The part of the budget that is kept for calls that have begun: one over this.
const RESERVE: usize = 8;
/// The part that images which may take long have at most, of all sandboxes together: one over this. They hold it for seconds, and
/// whoever sends bombs sends many of them: all other calls would be refused meanwhile.
const SLOW_SHARE: usize = 2;

/// The budget; clones share it.
#[derive(Clone)]
pub(crate) struct InFlight {
    shared: Arc<Budget>,
}

struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// What of it the sandbox's images hold that may take long.
    slow: AtomicUsize,
}

impl InFlight {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Budget { limit, used: AtomicUsize::new(0), slow: AtomicUsize::new(0) }) }
    }

    /// A permit for a new call, which holds nothing yet.
    pub(crate) fn permit(&self) -> Permit {
        Permit {
            held: Arc::new(Held {
                budget: Arc::clone(&self.shared),
                bytes: AtomicUsize::new(0),
                refused: AtomicBool::new(false),
            }),
        }
    }

    /// Bytes that all calls hold.
    pub(crate) fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether new calls are to be refused, so that those which have begun can end.
    pub(crate) fn is_crowded(&self) -> bool {
        self.used() >= self.shared.limit - self.shared.limit / RESERVE
    }

    /// What a call is told that comes while the budget [is crowded](Self::is_crowded).
    pub(crate) fn refusal(&self) -> ServingError {
        self.shared.full()
    }
}

/// What a batch's outputs take is its calls' together: it is nobody's, and counted until the last of them is done with it.
/// Until an answer is written from them, its own length is counted besides.
impl OutputMeter for InFlight {
    fn take(&self, bytes: usize) {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.shared.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("used", &self.used()).finish_non_exhaustive()
    }
}

impl Budget {
    fn full(&self) -> ServingError {
        ServingError::Overloaded {
            detail: format!(
                "The requests in progress hold the {} bytes of memory that they may hold together",
                self.limit
            ),
            retry_after: RETRY_AFTER,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// What one call holds of the budget. Clones are of the same call; the last one to drop gives all of it back.
#[derive(Clone)]
pub(crate) struct Permit {
    held: Arc<Held>,
}

struct Held {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    refused: AtomicBool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Permit {
    /// Takes `bytes` more, or none.
    ///
    /// # Errors
    /// `Overloaded` when the budget has no room now, `TooLarge` when the call would not fit into all of it.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), ServingError> {
        let Held { budget, bytes: held, refused } = &*self.held;
        if budget.take(bytes) {
            held.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        refused.store(true, Ordering::Relaxed);
        if self.bytes().saturating_add(bytes) > budget.limit {
            return Err(ServingError::TooLarge(format!(
                "The request needs more than the {} bytes of memory that all requests may hold together: send less \
                 at once.",
                budget.limit
            )));
        }
        Err(budget.full())
    }

    /// Hands over up to `bytes` of what it holds to `other`, of the same budget; gives how many those were.
    pub(crate) fn hand_over(&self, other: &Self, bytes: usize) -> usize {
        let less = |held: usize| Some(held.saturating_sub(bytes));
        let before = self.held.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let handed = before.unwrap_or_else(|held| held).min(bytes);
        other.held.bytes.fetch_add(handed, Ordering::Relaxed);
        handed
    }

    /// Counts `bytes` that exist already, even past the budget: then new calls are refused until there is room.
    pub(crate) fn count(&self, bytes: usize) {
        self.held.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes`, or what there is.
    pub(crate) fn give_back(&self, bytes: usize) {
        let less = |held: usize| Some(held.saturating_sub(bytes));
        let before = self.held.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let held = before.unwrap_or_else(|held| held);
        self.held.budget.used.fetch_sub(held.min(bytes), Ordering::Relaxed);
    }

    /// From now on the call holds an answer of `bytes`, and nothing of its request.
    pub(crate) fn answered(&self, bytes: usize) {
        self.count(bytes);
        let held = self.held.bytes.swap(bytes, Ordering::Relaxed);
        self.held.budget.used.fetch_sub(held - bytes, Ordering::Relaxed);
    }

    /// Bytes that the call holds.
    pub(crate) fn bytes(&self) -> usize {
        self.held.bytes.load(Ordering::Relaxed)
    }

    /// Whether the call wanted more than there was: what became of it then is not the request's fault.
    pub(crate) fn was_refused(&self) -> bool {
        self.held.refused.load(Ordering::Relaxed)
    }
}

/// A guest's memory is its call's.
impl sandbox::MemoryMeter for Permit {
    fn grow(&self, bytes: usize) -> bool {
        Self::grow(self, bytes).is_ok()
    }

    fn shrink(&self, bytes: usize) {
        self.give_back(bytes);
    }

    fn grow_slow(&self, bytes: usize) -> bool {
        let Budget { slow, limit, .. } = &*self.held.budget;
        let more = |held: usize| held.checked_add(bytes).filter(|&held| held <= limit / SLOW_SHARE);
        if slow.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let taken = Self::grow(self, bytes).is_ok();
        if !taken {
            slow.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn shrink_slow(&self, bytes: usize) {
        self.held.budget.slow.fetch_sub(bytes, Ordering::Relaxed);
        self.give_back(bytes);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
