//! The clock by which running instances are interrupted. It stands still when none has run for some ticks: a thread that woke
//! every few milliseconds for nothing would take that from a model that is computing, and one that is woken for each image
//! from the image.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

use crate::SandboxError;

/// How often a running instance is asked whether it must end.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// After how many ticks for nobody the clock stops.
const IDLE_TICKS: u32 = 4;

/// A thread that advances the engine's epoch while an instance runs, until it is dropped.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    count: Mutex<Count>,
    changed: Condvar,
}

struct Count {
    running: usize,
    /// Ticks since something ran.
    idle: u32,
    /// The thread waits to be told that something runs.
    stands_still: bool,
    stopped: bool,
}

impl State {
    /// A panic elsewhere cannot leave a count half changed.
    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next tick. False when there is none any more.
    fn wait(&self) -> bool {
        let mut count = self.lock();
        count.idle = if count.running == 0 { count.idle + 1 } else { 0 };
        if count.idle > IDLE_TICKS {
            count.stands_still = true;
            let waiting = self.changed.wait_while(count, |count| count.running == 0 && !count.stopped);
            count = waiting.unwrap_or_else(PoisonError::into_inner);
            count.stands_still = false;
            count.idle = 0;
        }
        let ticked = self.changed.wait_timeout_while(count, TICK, |count| !count.stopped);
        let (count, _) = ticked.unwrap_or_else(PoisonError::into_inner);
        !count.stopped
    }
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> Result<Self, SandboxError> {
        let engine = engine.weak();
        Self::start_with(move || engine.upgrade().map(|engine| engine.increment_epoch()))
    }

    /// `tick` gives nothing when it is not to be called again.
    fn start_with(tick: impl Fn() -> Option<()> + Send + 'static) -> Result<Self, SandboxError> {
        let count = Count { running: 0, idle: IDLE_TICKS, stands_still: false, stopped: false };
        let state = Arc::new(State { count: Mutex::new(count), changed: Condvar::new() });
        let ticking = Arc::clone(&state);
        let run = move || while ticking.wait() && tick().is_some() {};
        let thread =
            thread::Builder::new().name("sandbox-ticker".to_owned()).spawn(run).map_err(|error| {
                SandboxError::Component { detail: format!("its clock cannot be started: {error}") }
            })?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// The clock goes as long as what this gives is kept.
    pub(crate) fn running(&self) -> Running<'_> {
        let mut count = self.state.lock();
        count.running += 1;
        if count.stands_still && count.running == 1 {
            self.state.changed.notify_one();
        }
        Running { state: &self.state }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.lock().stopped = true;
        self.state.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has no way to panic, and if it had, there would be nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// An instance that runs.
pub(crate) struct Running<'a> {
    state: &'a State,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.state.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_clock_goes_while_an_instance_runs_and_stands_still_otherwise() {
        let (tick, ticks) = mpsc::channel();
        let ticker = Ticker::start_with(move || tick.send(()).ok()).unwrap();
        assert!(ticks.recv_timeout(TICK * 4).is_err(), "nothing runs");
        let (first, second) = (ticker.running(), ticker.running());
        ticks.recv().unwrap();
        drop(first);
        ticks.recv().unwrap();
        drop(second);
        // Those for nobody.
        while ticks.recv_timeout(TICK * 4).is_ok() {}
        let _again = ticker.running();
        ticks.recv().unwrap();
    }

    #[test]
    fn it_ends_when_it_is_dropped_and_when_there_is_nothing_to_tick() {
        drop(Ticker::start_with(|| Some(())).unwrap());
        let ticker = Ticker::start_with(|| None).unwrap();
        let _running = ticker.running();
    }
}
