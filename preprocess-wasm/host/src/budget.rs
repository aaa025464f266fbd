//! What one instance may use: linear memory and tables through wasmtime's limiter, time through its epochs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use crate::ticker::TICK;

/// Elements that all tables of an instance may have together: function pointers, of which the embedded guest has some hundreds.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Told of the linear memory of guests as it grows, by who shares memory between them and other work. See
/// [`Sandbox::metered`](crate::Sandbox::metered).
pub trait MemoryMeter: Send + Sync {
    /// Takes `bytes` more; gives false, and takes none, if there is no room. The image is then answered
    /// [`Busy`](crate::SandboxError::Busy).
    fn grow(&self, bytes: usize) -> bool;

    /// Gives back `bytes` that were taken.
    fn shrink(&self, bytes: usize);
}

/// What one instance holds, and what it may: the data of its store.
pub(crate) struct Budget {
    pub(crate) memory: Memory,
    pub(crate) watch: Watch,
}

/// Counts the linear memory of one instance, and the elements of its tables.
pub(crate) struct Memory {
    limit_bytes: usize,
    /// What it may have where it runs now.
    lane_bytes: usize,
    used_bytes: usize,
    table_elements: usize,
    meter: Option<Arc<dyn MemoryMeter>>,
    refused: Option<Refused>,
}

/// Why the guest did not get the memory that it asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Limit,
    Lane,
    Meter,
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize, meter: Option<Arc<dyn MemoryMeter>>) -> Self {
        Self { limit_bytes, lane_bytes: usize::MAX, used_bytes: 0, table_elements: 0, meter, refused: None }
    }

    /// From now on the instance may have `limit_bytes`, though no more than `lane_bytes`, if any, where it runs now. What it
    /// was refused before, it did without.
    pub(crate) fn allow(&mut self, limit_bytes: usize, lane_bytes: Option<usize>) {
        self.limit_bytes = limit_bytes;
        self.lane_bytes = lane_bytes.unwrap_or(usize::MAX);
        self.refused = None;
    }

    /// What the instance may have now.
    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Whether what it asked for last is more than one may have in its lane, though it is within its own limit.
    pub(crate) fn was_refused_by_lane(&self) -> bool {
        self.refused == Some(Refused::Lane)
    }

    /// Whether there was no room for what it asked for last beside other work, though it is within its own limit.
    pub(crate) fn was_refused_by_meter(&self) -> bool {
        self.refused == Some(Refused::Meter)
    }

    /// Whether what the guest asked for last, in this call, is more than it may have. If it stops itself after that, it
    /// is for want of memory: Rust's allocator has no other way out.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused == Some(Refused::Limit)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used_bytes.saturating_add(desired.saturating_sub(current));
        if used > self.limit_bytes || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(Refused::Limit);
            return Ok(false);
        }
        if used > self.lane_bytes {
            self.refused = Some(Refused::Lane);
            return Ok(false);
        }
        if let Some(meter) = &self.meter
            && !meter.grow(used - self.used_bytes)
        {
            self.refused = Some(Refused::Meter);
            return Ok(false);
        }
        self.used_bytes = used;
        self.refused = None;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = Some(Refused::Limit);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        if elements > MAX_TABLE_ELEMENTS || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = elements;
        Ok(true)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.shrink(self.used_bytes);
        }
    }
}

/// Until when, and for whom, an instance may run.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// The end of the time that any image may take, on whatever thread.
    latest: Instant,
    /// The end of the time that the caller has.
    pub(crate) deadline: Option<Instant>,
    /// The end of what the instance does now.
    pub(crate) slice: Option<Slice>,
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
    /// The thread's time when it was looked at last.
    seen: Duration,
    reason: Interrupted,
}

impl Slice {
    /// Begins now, on this thread; whoever is at work when it ends is interrupted with this reason.
    pub(crate) fn of(length: Duration, reason: Interrupted) -> Self {
        Self { left: length, most_at_once: Duration::MAX, seen: thread_time(), reason }
    }

    /// The same of the guest's time alone. While the host works for it, which is when an image is copied into its memory, no
    /// tick is noticed, so what is longer than from one tick to the next was not the guest's.
    pub(crate) fn without_the_hosts(length: Duration, reason: Interrupted) -> Self {
        Self { most_at_once: TICK * 2, ..Self::of(length, reason) }
    }

    /// Whether it has ended, asked at a tick.
    fn has_ended(&mut self) -> bool {
        let now = thread_time();
        let worked = now.saturating_sub(self.seen).min(self.most_at_once);
        self.seen = now;
        self.left = self.left.saturating_sub(worked);
        self.left.is_zero()
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
}

impl Watch {
    /// Of an instance that may run until `latest`, whatever else the machine does.
    pub(crate) fn new(
        latest: Instant,
        deadline: Option<Instant>,
        abandoned: Arc<AtomicBool>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { latest, deadline, slice: None, abandoned, stopping }
    }

    /// Asked at each tick of the epoch, on the instance's thread: whether the instance must end, and why.
    pub(crate) fn interrupts(&mut self, now: Instant) -> Option<Interrupted> {
        if self.stopping.load(Ordering::Relaxed) {
            Some(Interrupted::Stopping)
        } else if self.abandoned.load(Ordering::Relaxed) {
            Some(Interrupted::Abandoned)
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Interrupted::Deadline)
        } else if now >= self.latest {
            Some(Interrupted::Timeout)
        } else {
            self.slice.as_mut().and_then(|slice| slice.has_ended().then_some(slice.reason))
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
        })
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut memory = Memory::new(100, None);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(60, 80, None).unwrap());
        assert!(!memory.memory_growing(0, 21, None).unwrap(), "of another memory");
        assert!(memory.was_refused());
        assert!(memory.memory_growing(0, 20, None).unwrap());
        assert!(!memory.was_refused(), "it went on with less");
    }

    #[test]
    fn a_refusal_in_one_call_says_nothing_of_the_next() {
        let mut memory = Memory::new(100, None);
        assert!(!memory.memory_growing(0, 101, None).unwrap());
        memory.allow(100, None);
        assert!(!memory.was_refused());
    }

    #[test]
    fn a_lane_bounds_memory_besides_the_limit() {
        let mut memory = Memory::new(10, None);
        assert!(memory.memory_growing(0, 10, None).unwrap(), "the header is read in any lane");
        memory.allow(100, Some(50));
        assert!(memory.memory_growing(10, 50, None).unwrap());
        assert!(!memory.memory_growing(50, 51, None).unwrap());
        assert!(memory.was_refused_by_lane() && !memory.was_refused());
        assert!(!memory.memory_growing(50, 101, None).unwrap());
        assert!(memory.was_refused() && !memory.was_refused_by_lane(), "it has it in no lane");
        assert_eq!(memory.limit_bytes(), 100);
    }

    #[test]
    fn elements_are_counted_over_all_tables() {
        let mut memory = Memory::new(100, None);
        assert!(memory.table_growing(0, 12_000, None).unwrap());
        assert!(!memory.table_growing(0, 8_001, None).unwrap(), "of another table");
        assert!(!memory.table_growing(0, 10, Some(9)).unwrap(), "it may have nine");
        assert!(memory.table_growing(0, 5_000, None).unwrap());
        assert!(memory.table_growing(12_000, 15_000, None).unwrap());
        assert!(!memory.table_growing(5_000, 5_001, None).unwrap());
    }

    #[test]
    fn a_meter_is_told_and_gets_everything_back() {
        use std::sync::atomic::AtomicUsize;
        struct Meter(AtomicUsize);
        impl MemoryMeter for Meter {
            fn grow(&self, bytes: usize) -> bool {
                self.0
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
                    .is_ok()
            }
            fn shrink(&self, bytes: usize) {
                self.0.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        let meter = Arc::new(Meter(AtomicUsize::new(70)));
        let mut memory = Memory::new(100, Some(Arc::<Meter>::clone(&meter)));
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert_eq!(meter.0.load(Ordering::Relaxed), 10);
        assert!(!memory.memory_growing(60, 80, None).unwrap());
        assert!(memory.was_refused_by_meter() && !memory.was_refused());
        drop(memory);
        assert_eq!(meter.0.load(Ordering::Relaxed), 70);
    }

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

    #[test]
    fn a_limit_may_be_raised_and_tells_what_it_is() {
        let mut memory = Memory::new(10, None);
        assert!(!memory.memory_growing(0, 11, None).unwrap());
        memory.allow(20, None);
        assert!(memory.memory_growing(0, 20, None).unwrap());
        assert!(!memory.memory_growing(20, 21, None).unwrap());
        assert_eq!(memory.limit_bytes(), 20);
    }
}
