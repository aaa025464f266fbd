//! Until when an instance may run: by the clock, by its thread's work, for its caller, and in its turn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ticker::TICK;
use crate::turns::Turn;

/// Until when, and for whom, an instance may run.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// The end of the time that any image may take, on whatever thread.
    latest: Instant,
    /// The end of the time that the caller has.
    pub(crate) deadline: Option<Instant>,
    /// The end of what the instance does now.
    pub(crate) slice: Option<Slice>,
    /// Its part in the turns of the slow lane.
    turn: Option<Arc<Turn>>,
    /// Set when the caller has hung up.
    pub(crate) abandoned: Arc<AtomicBool>,
    /// Set when the sandbox stops.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// A bound on the processor time of the thread that runs an instance: what the instance did, however long it waited for a
/// core. A guest has nothing else to wait for. So what is short does not depend on what the machine does besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    left: Duration,
    /// The most that counts from one tick of the epoch to the next.
    most_at_once: Duration,
    timer: WorkTimer,
    reason: Interrupted,
}

impl Slice {
    /// Begins now, on this thread; whoever is at work when it ends is interrupted with this reason.
    pub(crate) fn of(length: Duration, reason: Interrupted) -> Self {
        Self { left: length, most_at_once: Duration::MAX, timer: WorkTimer::start(), reason }
    }

    /// The same of the guest's time alone. While the host works for it, which is when an image is copied into its memory, no
    /// tick is noticed, so what is longer than from one tick to the next was not the guest's.
    pub(crate) fn without_the_hosts(length: Duration, reason: Interrupted) -> Self {
        Self { most_at_once: TICK * 2, ..Self::of(length, reason) }
    }

    /// Whether it has ended, asked at a tick.
    fn has_ended(&mut self) -> bool {
        let worked = self.timer.lap().min(self.most_at_once);
        self.left = self.left.saturating_sub(worked);
        self.left.is_zero()
    }
}

/// Measures the processor time of the thread that it is asked on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkTimer {
    seen: Duration,
}

impl WorkTimer {
    pub(crate) fn start() -> Self {
        Self { seen: thread_time() }
    }

    /// What the thread has done since it was started or asked last.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = thread_time();
        now.saturating_sub(std::mem::replace(&mut self.seen, now))
    }
}

/// Processor time that this thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // It is never negative.
    Duration::try_from(time).unwrap_or_default()
}

/// Why an instance was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    Timeout,
    Deadline,
    Abandoned,
    Stopping,
    /// The header took longer than any header may.
    Probe,
    /// It took longer than its lane allows.
    Slow,
    /// It has waited for its turn as long as one may.
    Late,
    /// It waits, and the memory that it holds is needed for others.
    Evicted,
}

impl Watch {
    /// Of an instance that may run until `latest`, whatever else the machine does.
    pub(crate) fn new(
        latest: Instant,
        deadline: Option<Instant>,
        abandoned: Arc<AtomicBool>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { latest, deadline, slice: None, turn: None, abandoned, stopping }
    }

    /// The same of one that takes turns with others, once it has its first, for which it waits here. While it waits it does not
    /// run.
    pub(crate) fn taking_turns(mut self, turn: Arc<Turn>) -> Result<Self, Interrupted> {
        self.latest += turn.wait(|now| self.outside_reason(now))?;
        self.turn = Some(turn);
        Ok(self)
    }

    /// Called at each tick of the epoch, on the instance's thread: whether the instance must end, and why. Comes back only when
    /// it is its turn.
    pub(crate) fn at_tick(&mut self) -> Option<Interrupted> {
        if let Some(reason) = self.interrupts(Instant::now()) {
            return Some(reason);
        }
        let turn = self.turn.as_ref().filter(|turn| turn.is_preempted())?;
        match turn.wait(|now| self.outside_reason(now)) {
            Ok(waited) => {
                self.latest += waited;
                None
            }
            Err(reason) => Some(reason),
        }
    }

    fn interrupts(&mut self, now: Instant) -> Option<Interrupted> {
        if let Some(reason) = self.outside_reason(now) {
            Some(reason)
        } else if now >= self.latest {
            Some(Interrupted::Timeout)
        } else {
            self.slice.as_mut().and_then(|slice| slice.has_ended().then_some(slice.reason))
        }
    }

    /// Why an instance must end that has done nothing wrong.
    fn outside_reason(&self, now: Instant) -> Option<Interrupted> {
        if self.stopping.load(Ordering::Relaxed) {
            Some(Interrupted::Stopping)
        } else if self.abandoned.load(Ordering::Relaxed) {
            Some(Interrupted::Abandoned)
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Interrupted::Deadline)
        } else {
            None
        }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "it took longer than any image may",
            Self::Deadline => "the caller's deadline passed",
            Self::Abandoned => "the caller hung up",
            Self::Stopping => "the sandbox stops",
            Self::Probe => "its header took longer than any may",
            Self::Slow => "it took longer than its lane allows",
            Self::Late => "it has waited for too long",
            Self::Evicted => "others need its memory",
        })
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_first_reason_to_stop_is_the_callers() {
        let now = Instant::now();
        let abandoned = Arc::new(AtomicBool::new(false));
        let deadline = Some(now + Duration::from_secs(1));
        let mut watch = Watch::new(now, deadline, Arc::clone(&abandoned), Arc::default());
        let mut with_time = Watch { latest: now + HOUR, ..watch.clone() };
        assert_eq!(with_time.interrupts(now), None);
        assert_eq!(watch.interrupts(now), Some(Interrupted::Timeout));
        assert_eq!(watch.interrupts(now + Duration::from_secs(1)), Some(Interrupted::Deadline));
        assert_eq!(watch.interrupts(now + Duration::from_secs(3)), Some(Interrupted::Deadline));
        abandoned.store(true, Ordering::Relaxed);
        assert_eq!(watch.interrupts(now), Some(Interrupted::Abandoned));
    }

    #[test]
    fn a_slice_ends_by_the_work_of_its_own_thread_and_all_time_by_the_clock() {
        let now = Instant::now();
        let watch = move |slice| Watch {
            slice: Some(slice),
            ..Watch::new(now + HOUR, None, Arc::default(), Arc::default())
        };
        let mut over = watch(Slice::of(Duration::ZERO, Interrupted::Probe));
        assert_eq!(over.interrupts(now), Some(Interrupted::Probe));
        let mut short = watch(Slice::of(Duration::from_millis(2), Interrupted::Slow));
        while short.interrupts(now).is_none() {
            std::hint::spin_loop();
        }
        assert_eq!(short.interrupts(now), Some(Interrupted::Slow));
        // This thread has no such work behind it, and waiting is none; the clock goes on all the same.
        let elsewhere = std::thread::spawn(move || {
            let mut watch = watch(Slice::of(HOUR, Interrupted::Slow));
            (watch.interrupts(now), watch.interrupts(now + HOUR))
        });
        assert_eq!(elsewhere.join().unwrap(), (None, Some(Interrupted::Timeout)));
    }

    #[test]
    fn what_the_host_does_from_one_tick_to_the_next_does_not_count() {
        let work = || {
            let start = thread_time();
            while thread_time() < start + TICK * 8 {
                std::hint::spin_loop();
            }
        };
        let ends = |mut slice: Slice| {
            (0..20).find(|_| {
                work();
                slice.has_ended()
            })
        };
        // Eight ticks' work is counted as two: a limit of five is reached by the third time.
        assert_eq!(ends(Slice::without_the_hosts(TICK * 5, Interrupted::Probe)), Some(2));
        assert_eq!(ends(Slice::of(TICK * 5, Interrupted::Slow)), Some(0));
    }
}
