//! Sessions that share a device's memory: what one takes the others have not, until it is closed.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::{Backend, BackendFactory};

/// A device with memory for so many things: a session's weights are one, and each row of its largest batch.
struct Device {
    left: Mutex<usize>,
    opened: AtomicUsize,
}

impl Device {
    fn with(memory: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(memory), opened: AtomicUsize::new(0) })
    }

    fn left(&self) -> usize {
        *self.left.lock().unwrap()
    }

    fn open(self: &Arc<Self>) -> Result<InstanceParts, String> {
        let backend = OnDevice(Arc::clone(self)).create().map_err(|error| error.to_string())?;
        Ok(InstanceParts { backend, factory: Arc::new(OnDevice(Arc::clone(self))) })
    }
}

struct OnDevice(Arc<Device>);

impl BackendFactory for OnDevice {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        let Self(device) = self;
        let mut left = device.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or_else(|| BackendError::new("no memory for the weights"))?;
        device.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Session { device: Arc::clone(device), arena: 0 }))
    }
}

struct Session {
    device: Arc<Device>,
    /// Rows that it has memory for.
    arena: usize,
}

impl Backend for Session {
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        let mut left = self.device.left.lock().unwrap();
        // What there was is taken and kept, whether it is enough or not.
        let taken = batch.rows.saturating_sub(self.arena).min(*left);
        *left -= taken;
        self.arena += taken;
        if self.arena < batch.rows {
            return Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate memory"));
        }
        SimulatedBackend::echo(batch)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        *self.device.left.lock().unwrap() += 1 + self.arena;
    }
}

#[test]
fn a_gpu_without_room_for_three_sessions_serves_with_one_as_if_there_had_been_no_others() {
    let signature = signature(1);
    // Memory of the device, rows that fit, shapes that were measured, sessions that were opened.
    for (memory, fits, measured, opened) in [
        // One session fits whole beside the others' weights, and they do not fit beside it.
        (12, None, 1, 3),
        // It fits whole without them only.
        (10, None, 1, 4),
        (4, Some(3), 1, 4),
        // With the others open there is no memory for a single row.
        (3, Some(2), 1, 4),
        // The others cannot be opened.
        (2, Some(1), 1, 2),
        // All of it fits.
        (27, None, 2, 3),
    ] {
        let device = Device::with(memory);
        let open = |_, _| device.open();
        let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
        let learned = warmup.learn(&[ONE, NARROW]).unwrap_or_else(|error| panic!("{memory}: {error}"));
        assert_eq!((learned.fits, learned.measurements.0.len()), (fits, measured), "{memory}");
        assert_eq!(device.opened.load(Ordering::SeqCst), opened, "{memory}");
        let sizes = learned.measurements.0[0].milliseconds.iter().map(|&(rows, _)| rows);
        assert!(sizes.eq(1..=fits.unwrap_or(8)), "{memory}");
        if measured == 1 {
            assert_eq!(
                (learned.choice, learned.instances.narrow.len()),
                (Choice { narrow: 0, wide: None }, 1)
            );
        }
        drop(learned);
        assert_eq!(device.left(), memory, "nothing else is open");
    }
    let device = Device::with(1);
    let open = |_, _| device.open();
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    assert!(warmup.learn(&[ONE, NARROW]).err().unwrap().contains("a batch of 1"), "one row must fit");
}

#[test]
fn a_gpu_that_has_less_memory_than_when_it_was_measured_serves_with_one_session() {
    let signature = signature(1);
    let latencies = |shape, one| ShapeLatencies { shape, milliseconds: vec![(1, one), (8, 2.0 * one)] };
    let both = Measurements(vec![latencies(ONE, 2.0), latencies(NARROW, 3.0)]);
    let recall = |memory, known: &Measurements| {
        let device = Device::with(memory);
        let open = |_, _| device.open();
        let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
        let Recalled { instances, choice, fits } = warmup.recall(known).unwrap();
        (instances.narrow.len(), choice.narrow, fits)
    };
    assert_eq!(recall(18, &both), (2, 1, None));
    assert_eq!(recall(17, &both), (1, 0, None));
    assert_eq!(recall(3, &both), (1, 0, Some(2)));
    assert_eq!(recall(1 + 4, &Measurements(vec![latencies(ONE, 2.0)])), (1, 0, Some(4)));
    // What was asked for is not changed.
    let (instances, _, fits) = recall(17, &Measurements(vec![latencies(NARROW, 3.0)]));
    assert!(instances == 2 && fits.is_some_and(|fits| fits < 8), "{fits:?}");
}

#[test]
fn sizes_that_fitted_once_and_fit_no_more_are_left_out() {
    let (signature, runs) = (signature(1), AtomicUsize::new(0));
    let runs = Arc::new(runs);
    let open = |_, _| {
        let runs = Arc::clone(&runs);
        let backend = SimulatedBackend::new(move |batch| {
            // The first eight runs are those that warm.
            let is_timed = runs.fetch_add(1, Ordering::SeqCst) >= 8;
            match batch.rows {
                6.. if is_timed => Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate")),
                _ => SimulatedBackend::echo(batch),
            }
        });
        Ok(InstanceParts { backend: Box::new(backend.clone()), factory: Arc::new(backend) })
    };
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    let learned = warmup.learn(&[ONE]).unwrap();
    assert_eq!(learned.fits, Some(5));
    assert!(learned.measurements.0[0].milliseconds.iter().map(|&(rows, _)| rows).eq(1..=5));
}
