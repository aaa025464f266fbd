//! What one instance may use: linear memory and tables through wasmtime's limiter. Of its time [`Watch`] keeps account.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::{ResourceLimiter, Store};

use crate::watch::Watch;

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

    /// The same as [`MemoryMeter::grow`] for an image that may take long. Such may be kept from taking what others need.
    fn grow_slow(&self, bytes: usize) -> bool {
        self.grow(bytes)
    }

    /// Gives back `bytes` that were taken by [`MemoryMeter::grow_slow`].
    fn shrink_slow(&self, bytes: usize) {
        self.shrink(bytes);
    }
}

/// What one instance holds, and what it may: the data of its store.
pub(crate) struct Budget {
    pub(crate) memory: Memory,
    pub(crate) watch: Watch,
    /// Those that the image's header declares; none until that was read.
    pub(crate) pixels: u64,
}

/// An instance. wasmtime drops a store's data before what the store holds; so what the instance is counted by is kept until its
/// memory is free.
pub(crate) struct Instance {
    // It is dropped first.
    pub(crate) store: Store<Budget>,
    _charge: Arc<Charge>,
}

impl Instance {
    pub(crate) fn new(store: Store<Budget>) -> Self {
        let charge = Arc::clone(&store.data().memory.charge);
        Self { store, _charge: charge }
    }
}

/// The linear memory that an instance has, as its meter was told. It is given back when nobody holds this any more.
struct Charge {
    meter: Option<Arc<dyn MemoryMeter>>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Whether there is room for so many more.
    fn grow(&self, bytes: usize) -> bool {
        let taken = self.meter.as_ref().is_none_or(|meter| meter.grow(bytes));
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.shrink(self.bytes());
        }
    }
}

/// Counts the linear memory of one instance, and the elements of its tables.
pub(crate) struct Memory {
    limit_bytes: usize,
    /// What it may have where it runs now.
    lane_bytes: usize,
    charge: Arc<Charge>,
    table_elements: usize,
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
        let charge = Arc::new(Charge { meter, bytes: AtomicUsize::new(0) });
        Self { limit_bytes, lane_bytes: usize::MAX, charge, table_elements: 0, refused: None }
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
        let more = desired.saturating_sub(current);
        let used = self.charge.bytes().saturating_add(more);
        if used > self.limit_bytes || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(Refused::Limit);
            return Ok(false);
        }
        if used > self.lane_bytes {
            self.refused = Some(Refused::Lane);
            return Ok(false);
        }
        if !self.charge.grow(more) {
            self.refused = Some(Refused::Meter);
            return Ok(false);
        }
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
    fn a_limit_may_be_raised_and_tells_what_it_is() {
        let mut memory = Memory::new(10, None);
        assert!(!memory.memory_growing(0, 11, None).unwrap());
        memory.allow(20, None);
        assert!(memory.memory_growing(0, 20, None).unwrap());
        assert!(!memory.memory_growing(20, 21, None).unwrap());
        assert_eq!(memory.limit_bytes(), 20);
    }
}
