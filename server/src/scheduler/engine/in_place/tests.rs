#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::backend::simulated::SimulatedBackend;
use crate::backend::{BackendFactory, Batch};
use crate::scheduler::engine::Condition;
use crate::scheduler::{InputSpec, InstanceParts, Signature, lock};
use crate::tensor::{DataType, Tensor, TensorSpec};

/// A device with memory for one backend at a time, and for batches of so many rows.
#[derive(Default)]
struct Device {
    /// Backends that are there.
    open: AtomicUsize,
    made: AtomicUsize,
    rows: AtomicUsize,
    /// Whether it runs nothing, and no backend can be made.
    is_lost: AtomicBool,
    /// Whether the first backend fails whatever it is given.
    is_first_broken: AtomicBool,
    /// Number of the backend and rows of each run that succeeded.
    run: Mutex<Vec<(usize, usize)>>,
}

struct OnDevice {
    number: usize,
    device: Arc<Device>,
}

struct Factory {
    device: Arc<Device>,
    holds_two: bool,
}

impl BackendFactory for Factory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        let device = Arc::clone(&self.device);
        if device.is_lost.load(Ordering::SeqCst) {
            return Err(BackendError::new("CUDA failure 719"));
        }
        if device.open.load(Ordering::SeqCst) > 0 && !self.holds_two {
            return Err(BackendError::new("no memory beside the old one"));
        }
        device.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(OnDevice { number: device.made.fetch_add(1, Ordering::SeqCst), device }))
    }

    fn is_on_accelerator(&self) -> bool {
        true
    }
}

impl Backend for OnDevice {
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        let Self { number, device } = self;
        if device.is_lost.load(Ordering::SeqCst) {
            return Err(BackendError::of_kind(FailureKind::DeviceLost, "CUDA failure 719"));
        }
        if *number == 0 && device.is_first_broken.load(Ordering::SeqCst) {
            return Err(BackendError::new("the session is broken"));
        }
        if batch.rows > device.rows.load(Ordering::SeqCst) {
            return Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate memory"));
        }
        lock(&device.run).push((*number, batch.rows));
        SimulatedBackend::echo(batch)
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        self.device.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn engine(rows: usize, holds_two: bool) -> (Engine, Arc<Device>) {
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Uint8, dims: vec![1] };
    let input = InputSpec { tensor: spec.clone(), pixels: None };
    let signature =
        Signature { model: "m".into(), inputs: vec![input], outputs: vec![spec], max_batch_size: 8 };
    let device = Arc::new(Device { rows: AtomicUsize::new(rows), ..Device::default() });
    let factory = Factory { device: Arc::clone(&device), holds_two };
    let parts = InstanceParts { backend: factory.create().unwrap(), factory: Arc::new(factory) };
    (Engine::new(&Arc::new(signature), parts, None), device)
}

fn rebuild(engine: &mut Engine) -> Result<Option<usize>, String> {
    engine.rebuild(8, &|| true).map(|too_large| too_large.map(|(rows, _)| rows))
}

#[test]
fn a_broken_backend_goes_before_another_is_made_which_has_run_every_size() {
    let (mut engine, device) = engine(8, false);
    device.is_first_broken.store(true, Ordering::SeqCst);
    let error = BackendError::new("the session is broken");
    assert_eq!(engine.check(&error), Ok(Condition::Broken), "nobody waits for the new one");
    assert_eq!((engine.not_rebuilt(), device.made.load(Ordering::SeqCst)), ("the session is broken", 1));
    assert_eq!(rebuild(&mut engine), Ok(None));
    assert_eq!(*lock(&device.run), [1, 8, 2, 3, 4, 5, 6, 7].map(|rows| (1, rows)));
    assert_eq!(device.open.load(Ordering::SeqCst), 1);
    assert_eq!(engine.check(&BackendError::new("a bad request")), Ok(Condition::Sound));
}

#[test]
fn without_a_backend_an_engine_says_so_and_tries_again() {
    let (mut engine, device) = engine(8, false);
    engine.broke(&BackendError::new("it panicked"));
    device.is_lost.store(true, Ordering::SeqCst);
    assert_eq!(rebuild(&mut engine), Err("CUDA failure 719".to_owned()));
    assert_eq!(device.open.load(Ordering::SeqCst), 0);
    assert!(!engine.is_there());
    let nothing = engine.run(&[]);
    assert!(
        matches!(nothing, Err(super::super::Failure::Backend(error)) if error.kind() == FailureKind::DeviceLost)
    );
    device.is_lost.store(false, Ordering::SeqCst);
    assert_eq!(engine.rebuild(8, &|| false).unwrap_err(), "the server stops");
    assert_eq!(device.open.load(Ordering::SeqCst), 0, "one that is not warm is not kept");
    assert_eq!(rebuild(&mut engine), Ok(None));
    assert!(engine.is_there());
}

#[test]
fn a_lost_device_keeps_its_backend_which_serves_on_when_it_runs_again() {
    let (mut engine, device) = engine(8, false);
    device.is_lost.store(true, Ordering::SeqCst);
    let lost = BackendError::of_kind(FailureKind::DeviceLost, "CUDA failure 719");
    assert_eq!(engine.check(&lost), Ok(Condition::Broken));
    assert!(rebuild(&mut engine).is_err());
    assert_eq!(device.open.load(Ordering::SeqCst), 1, "nothing is freed on a device that is gone");
    device.is_lost.store(false, Ordering::SeqCst);
    assert_eq!(rebuild(&mut engine), Ok(None));
    assert_eq!((device.made.load(Ordering::SeqCst), lock(&device.run).clone()), (1, vec![(0, 1)]));
}

#[test]
fn a_backend_that_came_back_broken_goes_first_too() {
    let (mut engine, device) = engine(8, false);
    engine.broke(&BackendError::of_kind(FailureKind::DeviceLost, "GPU a is lost"));
    device.is_first_broken.store(true, Ordering::SeqCst);
    assert_eq!(rebuild(&mut engine), Ok(None));
    assert_eq!((device.made.load(Ordering::SeqCst), device.open.load(Ordering::SeqCst)), (2, 1));
}

#[test]
fn sizes_that_a_new_backend_has_no_memory_for_are_told_and_one_row_must_fit() {
    let (mut engine, device) = engine(4, true);
    engine.broke(&BackendError::new("it panicked"));
    assert_eq!(rebuild(&mut engine), Ok(Some(5)));
    assert_eq!(*lock(&device.run), [1, 2, 3, 4].map(|rows| (1, rows)));
    engine.broke(&BackendError::new("it panicked"));
    device.rows.store(0, Ordering::SeqCst);
    assert_eq!(rebuild(&mut engine), Err("Failed to allocate memory".to_owned()));
    assert_eq!(device.open.load(Ordering::SeqCst), 0);
    device.rows.store(7, Ordering::SeqCst);
    assert_eq!(rebuild(&mut engine), Ok(Some(8)), "all others fit");
}
