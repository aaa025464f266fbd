//! A bounded pool of named OS threads behind a bounded queue.
//!
//! Async code hands tasks in and never waits for a place: a full queue is an answer. A task that nobody waits for
//! any more is dropped unrun. A task that panics costs nobody else anything.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Something a thread of the pool does.
pub(crate) trait Task: Send + 'static {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Itself, unless it has waited for too long: then it has told its caller so.
    fn unless_late(self) -> Option<Self>
    where
        Self: Sized,
    {
        Some(self)
    }
    /// Does it. `stopping` turns true when the pool is dropped meanwhile.
    fn run(self, stopping: &Arc<AtomicBool>);
}

/// Why a task was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full; a place is likely to be free after this time.
    Full {
        /// From the mean time of a task, the queue's length and the number of threads.
        retry_after: Duration,
    },
    /// The pool stops.
    Stopping,
}

/// A task that was not taken, for whoever has to tell its caller.
pub(crate) struct NotTaken<T> {
    pub(crate) task: T,
    pub(crate) reason: Refused,
}

impl<T> fmt::Debug for NotTaken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// The threads of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads<'a> {
    /// What their names begin with.
    pub(crate) name: &'a str,
    pub(crate) count: usize,
    pub(crate) stack_bytes: usize,
    /// How much they stand back behind others, as `nice` counts it.
    pub(crate) niceness: i32,
}

/// Threads that run tasks. Dropping it drops what is queued, tells what runs to stop, and joins the threads.
pub(crate) struct Pool<T: Task> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    stopping: Arc<AtomicBool>,
    capacity: usize,
    threads: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    idle: usize,
    mean_task: Duration,
}

impl<T: Task> Pool<T> {
    /// Starts a pool; `capacity` tasks may wait for one of its threads.
    pub(crate) fn start(threads: &Threads, capacity: usize) -> io::Result<Self> {
        let &Threads { name, count, stack_bytes, niceness } = threads;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                idle: count,
                mean_task: Duration::from_millis(10),
            }),
            changed: Condvar::new(),
            stopping: Arc::new(AtomicBool::new(false)),
            capacity,
            threads: count,
        });
        let mut pool = Self { shared, threads: Vec::with_capacity(count) };
        for index in 0..count {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("{name}-{index}"))
                .stack_size(stack_bytes)
                .spawn(move || {
                    stand_back(niceness);
                    shared.work();
                })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues a task or refuses it, at once.
    pub(crate) fn submit(&self, task: T) -> Result<(), NotTaken<T>> {
        let mut state = self.shared.lock();
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(NotTaken { task, reason: Refused::Stopping });
        }
        // Tasks that an idle thread is about to take do not wait.
        let places = self.shared.capacity + state.idle;
        if state.queue.len() >= places {
            state.queue.retain(Task::is_wanted);
        }
        if state.queue.len() >= places {
            let ahead = u32::try_from(state.queue.len() + 1).unwrap_or(u32::MAX);
            let workers = u32::try_from(self.shared.threads).unwrap_or(u32::MAX).max(1);
            let retry_after = state.mean_task.saturating_mul(ahead) / workers;
            let retry_after = retry_after.max(Duration::from_millis(10));
            return Err(NotTaken { task, reason: Refused::Full { retry_after } });
        }
        state.queue.push_back(task);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Whether the pool is being dropped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }
}

impl<T: Task> Drop for Pool<T> {
    fn drop(&mut self) {
        // The flag is set under the lock, so that no thread misses it between looking and waiting.
        let dropped = {
            let mut state = self.shared.lock();
            self.shared.stopping.store(true, Ordering::Relaxed);
            std::mem::take(&mut state.queue)
        };
        self.shared.changed.notify_all();
        drop(dropped);
        for thread in self.threads.drain(..) {
            // A task's panic is caught where it runs.
            let _ = thread.join();
        }
    }
}

impl<T: Task> Shared<T> {
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let Some(task) = state.queue.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.idle -= 1;
            drop(state);
            let took = self.run(task);
            state = self.lock();
            state.idle += 1;
            if let Some(took) = took {
                // A moving mean over about the last eight tasks.
                state.mean_task = (state.mean_task * 7 + took) / 8;
            }
        }
    }

    /// Runs a task if it is still wanted and not late; returns how long it took.
    fn run(&self, task: T) -> Option<Duration> {
        if !task.is_wanted() {
            return None;
        }
        let task = task.unless_late()?;
        let started = Instant::now();
        // A task owns all it touches, so nothing half-changed is left behind by a panic.
        if catch_unwind(AssertUnwindSafe(|| task.run(&self.stopping))).is_err() {
            tracing::error!("a task of the sandbox panicked; its thread goes on");
        }
        Some(started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lowers the priority of this thread. Where that cannot be done, it works all the same.
fn stand_back(niceness: i32) {
    // On Linux the priority of "the process" is that of the calling thread; 19 is the lowest.
    let lower = || {
        let own = rustix::process::getpriority_process(None)?;
        rustix::process::setpriority_process(None, (own + niceness).min(19))
    };
    if cfg!(target_os = "linux")
        && niceness > 0
        && let Err(error) = lower()
    {
        tracing::debug!(%error, "the priority of a thread of the sandbox cannot be lowered");
    }
}

#[cfg(test)]
mod tests;
