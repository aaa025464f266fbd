#![allow(clippy::unwrap_used)]

use std::sync::{Condvar, Mutex};

use super::candidate::UNKNOWN_MS;
use super::*;
use crate::backend::simulated::SimulatedBackend;
use crate::backend::{BackendError, Batch, FailureKind};
use crate::repository::shapes::ShapeLatencies;
use crate::scheduler::InputSpec;
use crate::tensor::{DataType, Tensor, TensorSpec};

const WIDE: InstanceShape = InstanceShape { instances: 1, threads: 2 };
const NARROW: InstanceShape = InstanceShape { instances: 2, threads: 1 };
/// More than anything here takes.
const LONG: Duration = Duration::from_secs(600);

/// A model of one byte a row, in batches of up to 8.
fn signature(dim: i64) -> Arc<Signature> {
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Uint8, dims: vec![dim] };
    let input = InputSpec { tensor: spec.clone(), pixels: None };
    Arc::new(Signature { model: "m".into(), inputs: vec![input], outputs: vec![spec], max_batch_size: 8 })
}

/// Opened sessions, and the runs of each: number and threads of the session, rows.
#[derive(Default)]
struct Runs {
    opened: Mutex<Vec<(usize, usize)>>,
    run: Mutex<Vec<(usize, usize, usize)>>,
}

impl Runs {
    fn count(&self, number: usize, threads: usize, rows: usize) -> usize {
        self.run.lock().unwrap().iter().filter(|&&run| run == (number, threads, rows)).count()
    }
}

type Behaviour = fn(&Batch<'_>) -> Result<Vec<Tensor>, BackendError>;

/// Opens sessions that note what they run.
fn noting(runs: &Arc<Runs>, behaviour: Behaviour) -> impl Fn(usize, usize) -> Result<InstanceParts, String> {
    move |number, threads| {
        runs.opened.lock().unwrap().push((number, threads));
        let runs = Arc::clone(runs);
        let backend = SimulatedBackend::new(move |batch| {
            runs.run.lock().unwrap().push((number, threads, batch.rows));
            behaviour(batch)
        });
        Ok(InstanceParts { backend: Box::new(backend.clone()), factory: Arc::new(backend) })
    }
}

#[test]
fn the_ends_come_before_what_lies_between_and_the_widest_gaps_first() {
    assert_eq!(sizes(0), [1]);
    assert_eq!(sizes(1), [1]);
    assert_eq!(sizes(2), [1, 2]);
    assert_eq!(sizes(8), [1, 8, 4, 2, 6, 3, 5, 7]);
    assert_eq!(sizes(4096).len(), MAX_SIZES);
    assert_eq!(sizes(4096)[..4], [1, 4096, 2048, 1024]);
}

#[test]
fn with_time_enough_every_size_is_run_in_every_shape_on_every_session() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, SimulatedBackend::echo);
    let warmup = Warmup { signature: &signature, open: &open, time: LONG, on_gpu: false };
    let learned = warmup.learn(&[WIDE, NARROW]).unwrap();
    assert_eq!(*runs.opened.lock().unwrap(), [(0, 2), (0, 1), (1, 1)]);
    for rows in 1..=8 {
        for (number, threads) in [(0, 2), (0, 1), (1, 1)] {
            // Once to warm it, and in each round at least once.
            assert!(runs.count(number, threads, rows) > ROUNDS, "{rows} rows on {number} with {threads}");
        }
    }
    let measured = |at: usize| learned.measurements.0[at].milliseconds.iter().map(|&(rows, _)| rows);
    for at in 0..2 {
        assert!(measured(at).eq(1..=8));
    }
    let serving = learned.instances.narrow.len();
    assert_eq!(serving, learned.measurements.0[learned.choice.narrow].shape.instances);
    assert_eq!(learned.instances.wide.is_some(), learned.choice.wide.is_some());
}

#[test]
fn without_time_the_ends_are_run_and_no_shape_but_the_two_that_matter_is_opened() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, SimulatedBackend::echo);
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: false };
    let halves = InstanceShape { instances: 2, threads: 4 };
    let learned = warmup.learn(&[WIDE, NARROW, halves]).unwrap();
    assert_eq!(learned.measurements.0.len(), 2);
    for (number, threads) in [(0, 2), (0, 1), (1, 1)] {
        let counts = [1, 2, 4, 8].map(|rows| runs.count(number, threads, rows));
        assert_eq!(counts, [1, 0, 0, 1]);
    }
    assert!(!runs.opened.lock().unwrap().iter().any(|&(_, threads)| threads == 4));
}

#[test]
fn what_is_known_is_opened_and_warmed_but_not_measured() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, SimulatedBackend::echo);
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: false };
    let latencies = |shape, one| ShapeLatencies { shape, milliseconds: vec![(1, one), (8, 8.0 * one)] };
    let known = Measurements(vec![latencies(WIDE, 8.5), latencies(NARROW, 14.7)]);
    let Recalled { instances, .. } = warmup.recall(&known).unwrap();
    assert_eq!((instances.narrow.len(), instances.wide.is_some()), (2, true));
    assert_eq!(*runs.opened.lock().unwrap(), [(0, 1), (1, 1), (0, 2)]);
    for (number, threads) in [(0, 2), (0, 1), (1, 1)] {
        let counts = [1, 4, 8].map(|rows| runs.count(number, threads, rows));
        assert_eq!(counts, [1, 0, 1]);
    }
}

#[test]
fn the_sessions_of_a_shape_are_timed_while_all_of_them_work() {
    let signature = signature(1);
    let together = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let open = |_, _| {
        let together = Arc::clone(&together);
        // Waits until the other session runs the same round.
        let backend = SimulatedBackend::new(move |batch| {
            let (count, changed) = &*together;
            let mut arrived = count.lock().unwrap();
            *arrived += 1;
            changed.notify_all();
            let round = arrived.div_ceil(2) * 2;
            let (arrived, waited) =
                changed.wait_timeout_while(arrived, LONG / 20, |arrived| *arrived < round).unwrap();
            drop(arrived);
            if waited.timed_out() {
                return Err(BackendError::new("it runs alone"));
            }
            SimulatedBackend::echo(batch)
        });
        Ok(InstanceParts { backend: Box::new(backend.clone()), factory: Arc::new(backend) })
    };
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: false };
    assert_eq!(warmup.learn(&[NARROW]).map(|learned| learned.instances.narrow.len()), Ok(2));
}

#[test]
fn a_model_that_fails_on_its_own_kind_of_input_is_not_served_unless_its_dimensions_are_open() {
    let runs = Arc::new(Runs::default());
    let open = noting(&runs, |_| Err(BackendError::new("no")));
    let fixed = signature(1);
    let warmup = Warmup { signature: &fixed, open: &open, time: LONG, on_gpu: false };
    let error = warmup.learn(&[WIDE, NARROW]).err().unwrap();
    assert_eq!(error, "it fails on a batch of 1 with nothing but zeros: no");
    let of_any_size = signature(-1);
    let warmup = Warmup { signature: &of_any_size, open: &open, time: LONG, on_gpu: false };
    let learned = warmup.learn(&[WIDE, NARROW]).unwrap();
    assert_eq!((learned.instances.narrow.len(), learned.choice.wide), (1, None));
    assert_eq!(learned.measurements.0[0].milliseconds, [(1, UNKNOWN_MS)]);
}

#[test]
fn sessions_that_cannot_be_opened_besides_the_first_are_done_without() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let noting = noting(&runs, SimulatedBackend::echo);
    let open =
        |number, threads| if threads == 1 { Err("no memory".to_owned()) } else { noting(number, threads) };
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: false };
    let learned = warmup.learn(&[WIDE, NARROW]).unwrap();
    assert_eq!((learned.measurements.0.len(), learned.instances.narrow.len()), (1, 1));
    assert_eq!(warmup.learn(&[NARROW]).err().unwrap(), "no memory");
}

const ONE: InstanceShape = InstanceShape { instances: 1, threads: 1 };

#[test]
fn on_a_gpu_every_size_is_run_and_timed_whatever_it_takes_and_no_session_has_the_machine_for_itself() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, SimulatedBackend::echo);
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    let learned = warmup.learn(&[ONE, NARROW]).unwrap();
    for rows in 1..=8 {
        // Once to warm it and once to time it: session 0 of both shapes has the same number and threads.
        assert!(runs.count(0, 1, rows) >= 4 && runs.count(1, 1, rows) >= 2, "{rows} rows");
    }
    for of_shape in &learned.measurements.0 {
        assert!(of_shape.milliseconds.iter().map(|&(rows, _)| rows).eq(1..=8));
    }
    assert_eq!((learned.choice.wide, learned.fits), (None, None));
    assert!(learned.instances.wide.is_none());
}

#[test]
fn what_a_gpu_is_known_to_take_is_run_in_every_size_all_the_same() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, SimulatedBackend::echo);
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    let latencies = |shape, one| ShapeLatencies { shape, milliseconds: vec![(1, one), (8, 2.0 * one)] };
    let known = Measurements(vec![latencies(ONE, 2.0), latencies(NARROW, 3.0)]);
    let Recalled { instances, fits, .. } = warmup.recall(&known).unwrap();
    assert_eq!((instances.narrow.len(), instances.wide.is_some(), fits), (2, false, None));
    for rows in 1..=8 {
        assert_eq!((runs.count(0, 1, rows), runs.count(1, 1, rows)), (1, 1), "{rows} rows");
    }
}

#[test]
fn batches_that_a_gpu_has_no_memory_for_are_left_out() {
    let (signature, runs) = (signature(1), Arc::new(Runs::default()));
    let open = noting(&runs, |batch| match batch.rows {
        6.. => Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate memory")),
        _ => SimulatedBackend::echo(batch),
    });
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    let learned = warmup.learn(&[ONE]).unwrap();
    assert_eq!(learned.fits, Some(5));
    assert!(learned.measurements.0[0].milliseconds.iter().map(|&(rows, _)| rows).eq(1..=5));
    assert_eq!(warmup.recall(&learned.measurements).unwrap().fits, Some(5));

    let open = noting(&runs, |_| Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate")));
    let warmup = Warmup { signature: &signature, open: &open, time: Duration::ZERO, on_gpu: true };
    assert!(warmup.learn(&[ONE]).err().unwrap().contains("a batch of 1"), "one row must fit");
}

mod memory;
