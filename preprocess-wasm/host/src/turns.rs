//! The slow lane's turns: its images outnumber the cores, and work in turn on some threads of their own.
//!
//! Images there take from a tenth of a second to several seconds, and nothing that may be believed says beforehand which. In
//! one queue a good one of 0.2 s would wait for bombs of five. So each is begun soon, stops where another is to go before it,
//! and goes on later where it stopped: it keeps its thread, its instance and what it did. [`Order`] decides.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::order::{Order, Room};
use crate::budget::MemoryMeter;
use crate::watch::{Interrupted, WorkTimer};

/// How often one that waits looks whether anybody still waits for it: nobody wakes it for that.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Who of the lane's images works, and what memory is left for them.
pub(crate) struct Turns {
    order: Mutex<Order>,
    changed: Condvar,
}

impl Turns {
    /// For `places` images at work at once, which together with those that wait may hold `memory_bytes`.
    pub(crate) fn new(places: usize, memory_bytes: usize) -> Self {
        Self { order: Mutex::new(Order::new(places, memory_bytes)), changed: Condvar::new() }
    }

    /// Puts an image of so many pixels in, on this thread. It may wait for places as long as `patience`, in all. Its memory is told
    /// to `meter` too.
    pub(crate) fn join(
        self: &Arc<Self>,
        pixels: u64,
        patience: Duration,
        meter: Option<Arc<dyn MemoryMeter>>,
    ) -> Turn {
        let id = self.lock().join(pixels);
        let own = Mutex::new(Own { timer: WorkTimer::start(), patience });
        Turn { turns: Arc::clone(self), id, meter, own }
    }

    /// A panic elsewhere cannot leave the order half changed.
    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, order: MutexGuard<'a, Order>) -> MutexGuard<'a, Order> {
        self.changed.wait_timeout(order, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// One image's part in the turns, until it is dropped. It belongs to the thread that the image runs on.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    id: u64,
    meter: Option<Arc<dyn MemoryMeter>>,
    own: Mutex<Own>,
}

struct Own {
    /// Since the image's work was counted last.
    timer: WorkTimer,
    /// How long it may yet wait, in all.
    patience: Duration,
}

impl Turn {
    /// Waits for a place, unless there is a reason to stop or it has waited for as long as one may. Gives the time it took.
    pub(crate) fn wait(
        &self,
        stops: impl Fn(Instant) -> Option<Interrupted>,
    ) -> Result<Duration, Interrupted> {
        let started = Instant::now();
        let mut order = self.turns.lock();
        loop {
            if order.is_evicted(self.id) {
                return Err(Interrupted::Evicted);
            }
            let now = Instant::now();
            let waited = now - started;
            if order.works(self.id) {
                let mut own = self.own();
                *own = Own { timer: WorkTimer::start(), patience: own.patience.saturating_sub(waited) };
                return Ok(waited);
            }
            if let Some(reason) = stops(now) {
                return Err(reason);
            }
            if waited >= self.own().patience {
                return Err(Interrupted::Late);
            }
            order = self.turns.wait(order);
        }
    }

    /// Counts what the image has done since this was called last. True if it must wait for a place again.
    pub(crate) fn is_preempted(&self) -> bool {
        let worked = self.own().timer.lap();
        let preempted = self.turns.lock().worked(self.id, worked);
        if preempted {
            self.turns.changed.notify_all();
        }
        preempted
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `take` until there is room, which `make_room` may make, or none can be made. What was evicted gives its memory back soon.
    fn until_taken(
        &self,
        mut take: impl FnMut(&mut Order) -> bool,
        make_room: impl Fn(&mut Order) -> Room,
    ) -> bool {
        let mut order = self.turns.lock();
        loop {
            if take(&mut order) {
                return true;
            }
            match make_room(&mut order) {
                Room::None => return false,
                Room::Soon => {
                    self.turns.changed.notify_all();
                    order = self.turns.wait(order);
                }
            }
        }
    }
}

/// Where there is too little memory, that of images which wait is taken, of the lane's own and of what a meter gives.
impl MemoryMeter for Turn {
    fn grow(&self, bytes: usize) -> bool {
        let id = self.id;
        let ours = self.until_taken(|order| order.take(id, bytes), |order| order.make_room(id, bytes));
        let Some(meter) = self.meter.as_ref().filter(|_| ours) else { return ours };
        let taken = self.until_taken(|_| meter.grow_slow(bytes), |order| order.evict_for(id, bytes));
        if !taken {
            self.turns.lock().give_back(id, bytes);
            self.turns.changed.notify_all();
        }
        taken
    }

    fn shrink(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.shrink_slow(bytes);
        }
        self.turns.lock().give_back(self.id, bytes);
        self.turns.changed.notify_all();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // From the last tick on, which is all of it for what is done before the first. It ends on its own thread.
        let worked = self.own().timer.lap();
        self.turns.lock().leave(self.id, worked);
        self.turns.changed.notify_all();
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("id", &self.id).finish_non_exhaustive()
    }
}

mod order;

#[cfg(test)]
mod tests;
