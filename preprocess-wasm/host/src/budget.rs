//! What one instance may use: linear memory and tables through wasmtime's limiter, time through its epochs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

/// Elements that all tables of an instance may have: function pointers, of which the embedded guest has some hundreds.
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

/// Counts the linear memory of one instance.
pub(crate) struct Memory {
    limit_bytes: usize,
    used_bytes: usize,
    refused: bool,
    meter: Option<Arc<dyn MemoryMeter>>,
    refused_by_meter: bool,
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize, meter: Option<Arc<dyn MemoryMeter>>) -> Self {
        Self { limit_bytes, used_bytes: 0, refused: false, meter, refused_by_meter: false }
    }

    /// From now on the instance may have `limit_bytes`.
    pub(crate) fn allow(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// What the instance may have now.
    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Whether there was no room for it beside other work, though it is within its own limit.
    pub(crate) fn was_refused_by_meter(&self) -> bool {
        self.refused_by_meter
    }

    /// Whether the guest asked for more than it may have. A trap after that is for want of memory: Rust's
    /// allocator has no other way out.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
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
            self.refused = true;
            return Ok(false);
        }
        if let Some(meter) = &self.meter
            && !meter.grow(used - self.used_bytes)
        {
            self.refused_by_meter = true;
            return Ok(false);
        }
        self.used_bytes = used;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
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
    /// The end of the work that any image may be.
    work: Slice,
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
/// core. A guest has nothing else to wait for. So a verdict on an image does not depend on what the machine does besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    ends_at: Duration,
    reason: Interrupted,
}

impl Slice {
    /// Begins now, on this thread; whoever is at work when it ends is interrupted with this reason.
    pub(crate) fn of(length: Duration, reason: Interrupted) -> Self {
        Self { ends_at: thread_time().saturating_add(length), reason }
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
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
    /// It is no quick work.
    Slow,
}

impl Watch {
    /// From now on, on the thread that is to run the instance.
    pub(crate) fn new(
        timeout: Duration,
        deadline: Option<Instant>,
        abandoned: Arc<AtomicBool>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { work: Slice::of(timeout, Interrupted::Timeout), deadline, slice: None, abandoned, stopping }
    }

    /// Asked at each tick of the epoch, on the instance's thread: whether the instance must end, and why.
    pub(crate) fn interrupts(&self, now: Instant) -> Option<Interrupted> {
        if self.stopping.load(Ordering::Relaxed) {
            Some(Interrupted::Stopping)
        } else if self.abandoned.load(Ordering::Relaxed) {
            Some(Interrupted::Abandoned)
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Interrupted::Deadline)
        } else {
            let worked = thread_time();
            let over =
                [Some(self.work), self.slice].into_iter().flatten().find(|slice| worked >= slice.ends_at);
            over.map(|slice| slice.reason)
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
            Self::Slow => "it is no quick work",
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

    #[test]
    fn the_first_reason_to_stop_is_the_callers() {
        let now = Instant::now();
        let abandoned = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            work: Slice::of(Duration::ZERO, Interrupted::Timeout),
            deadline: Some(now + Duration::from_secs(1)),
            slice: None,
            abandoned: Arc::clone(&abandoned),
            stopping: Arc::default(),
        };
        let with_time =
            Watch { work: Slice::of(Duration::from_secs(3600), Interrupted::Timeout), ..watch.clone() };
        assert_eq!(with_time.interrupts(now), None);
        assert_eq!(watch.interrupts(now), Some(Interrupted::Timeout));
        assert_eq!(watch.interrupts(now + Duration::from_secs(1)), Some(Interrupted::Deadline));
        assert_eq!(watch.interrupts(now + Duration::from_secs(3)), Some(Interrupted::Deadline));
        abandoned.store(true, Ordering::Relaxed);
        assert_eq!(watch.interrupts(now), Some(Interrupted::Abandoned));
    }

    #[test]
    fn a_slice_ends_by_the_work_of_its_own_thread() {
        let watch = |slice| Watch {
            slice: Some(slice),
            ..Watch::new(Duration::from_secs(3600), None, Arc::default(), Arc::default())
        };
        let over = watch(Slice::of(Duration::ZERO, Interrupted::Probe));
        assert_eq!(over.interrupts(Instant::now()), Some(Interrupted::Probe));
        let short = watch(Slice::of(Duration::from_millis(2), Interrupted::Slow));
        while short.interrupts(Instant::now()).is_none() {
            std::hint::spin_loop();
        }
        assert_eq!(short.interrupts(Instant::now()), Some(Interrupted::Slow));
        // This thread has no such work behind it.
        let elsewhere = std::thread::spawn(move || {
            watch(Slice::of(Duration::from_secs(3600), Interrupted::Slow)).interrupts(Instant::now())
        });
        assert_eq!(elsewhere.join().unwrap(), None);
    }

    #[test]
    fn a_limit_may_be_raised_and_tells_what_it_is() {
        let mut memory = Memory::new(10, None);
        assert!(!memory.memory_growing(0, 11, None).unwrap());
        memory.allow(20);
        assert!(memory.memory_growing(0, 20, None).unwrap());
        assert!(!memory.memory_growing(20, 21, None).unwrap());
        assert_eq!(memory.limit_bytes(), 20);
    }
}
