//! The open sessions of one shape, run and timed.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::Warmup;
use crate::backend::{Backend, BackendError};
use crate::repository::shapes::{InstanceShape, ShapeLatencies};
use crate::scheduler::{DryRun, InstanceParts};

/// Runs of one size in one round at most, for models so fast that one run says little.
const RUNS: usize = 4;
/// Milliseconds that a model is taken to need when it cannot be measured.
pub(super) const UNKNOWN_MS: f64 = 10.0;
/// A quartile over so many times the minimum says more about the machine's other work than about the model.
const STEADY: u32 = 2;

/// The open sessions of one shape, and what their runs took.
pub(super) struct Candidate {
    pub(super) shape: InstanceShape,
    pub(super) instances: Vec<InstanceParts>,
    pub(super) sizes: Vec<SizeRuns>,
    /// Rows for which the device has memory, where that is less than the model may be asked for.
    pub(super) fits: Option<usize>,
}

/// Runs of one batch size in one shape.
pub(super) struct SizeRuns {
    rows: usize,
    /// The first run allocates and, on a GPU, chooses its algorithms: it counts only if there is no other.
    first: Duration,
    /// By session.
    timed: Vec<Vec<Duration>>,
}

impl SizeRuns {
    /// Of a model that cannot be measured.
    pub(super) fn unknown() -> Self {
        Self { rows: 1, first: Duration::from_secs_f64(UNKNOWN_MS / 1e3), timed: Vec::new() }
    }

    /// The lower quartile: what else the machine does meanwhile only ever adds, and a quarter of the runs had it quiet. A
    /// median made one shape look twice as slow as another when most of its runs fell into a slow moment. It is that of the
    /// slowest session: the GPUs may be unlike, and nobody knows which of them a request will meet.
    fn typical(&self) -> Duration {
        self.timed.iter().filter_map(|timed| quartile(timed)).max().unwrap_or(self.first)
    }

    pub(super) fn is_steady(&self) -> bool {
        let is_steady = |timed: &Vec<Duration>| {
            let shortest = timed.iter().min();
            shortest
                .is_none_or(|&shortest| quartile(timed).is_none_or(|typical| typical <= shortest * STEADY))
        };
        self.timed.iter().all(is_steady)
    }
}

/// The lower one.
fn quartile(timed: &[Duration]) -> Option<Duration> {
    let mut timed = timed.to_vec();
    timed.sort_unstable();
    timed.get(timed.len() / 4).copied()
}

impl Warmup<'_> {
    /// Opens the sessions of a shape.
    pub(super) fn candidate(&self, shape: InstanceShape) -> Result<Candidate, String> {
        let open = |number| (self.open)(number, shape.threads);
        let instances = (0..shape.instances).map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Candidate { shape, instances, sizes: Vec::new(), fits: None })
    }
}

impl Candidate {
    /// Runs a batch for the first time, on every session.
    pub(super) fn warm(&mut self, run: &DryRun, rows: usize) -> Result<(), BackendError> {
        let durations = self.step(run, Duration::ZERO);
        let durations = durations.map_err(|error| failed_on_zeros(rows, &error))?;
        let first = durations.into_iter().flatten().max().unwrap_or_default();
        self.sizes.push(SizeRuns { rows, first, timed: Vec::new() });
        Ok(())
    }

    pub(super) fn time(&mut self, run: &DryRun, rows: usize, time: Duration) -> Result<(), BackendError> {
        let durations = self.step(run, time)?;
        if let Some(size) = self.sizes.iter_mut().find(|size| size.rows == rows) {
            size.timed.resize(durations.len(), Vec::new());
            for (timed, more) in size.timed.iter_mut().zip(durations) {
                timed.extend(more);
            }
        }
        Ok(())
    }

    pub(super) fn has_run(&self, rows: usize) -> bool {
        self.sizes.iter().any(|size| size.rows == rows)
    }

    /// Notes that the device has no memory for so many rows.
    pub(super) fn leave_out_from(&mut self, rows: usize) {
        self.fits = Some(rows - 1);
        self.sizes.retain(|size| size.rows < rows);
    }

    /// Runs a batch on every session, all at once as under load; again for as long as there is time. Gives the durations by
    /// session.
    fn step(&mut self, run: &DryRun, time: Duration) -> Result<Vec<Vec<Duration>>, BackendError> {
        if let [only] = &mut *self.instances {
            return repeat(only.backend.as_mut(), run.clone(), time).map(|durations| vec![durations]);
        }
        let start = Barrier::new(self.instances.len());
        thread::scope(|scope| {
            let running: Vec<_> = self
                .instances
                .iter_mut()
                .map(|instance| {
                    let (backend, run, start) = (instance.backend.as_mut(), run.clone(), &start);
                    scope.spawn(move || {
                        start.wait();
                        repeat(backend, run, time)
                    })
                })
                .collect();
            let ended = running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(BackendError::new("it panicked"))));
            ended.collect()
        })
    }

    /// What a batch is likely to take, from the sizes that were run: every row the same.
    pub(super) fn expected(&self, rows: usize) -> Duration {
        let nearest = self.sizes.iter().min_by_key(|size| size.rows.abs_diff(rows));
        nearest.map_or(Duration::ZERO, |size| size.first.mul_f64(rows as f64 / size.rows as f64))
    }

    pub(super) fn latencies(&self) -> ShapeLatencies {
        let milliseconds = |size: &SizeRuns| (size.rows, size.typical().as_secs_f64() * 1e3);
        let mut milliseconds: Vec<_> = self.sizes.iter().map(milliseconds).collect();
        milliseconds.sort_unstable_by_key(|&(rows, _)| rows);
        ShapeLatencies { shape: self.shape, milliseconds }
    }
}

fn failed_on_zeros(rows: usize, error: &BackendError) -> BackendError {
    let detail = format!("it fails on a batch of {rows} with nothing but zeros: {error}");
    BackendError::of_kind(error.kind(), detail)
}

/// Runs a batch until `time` is over, [`RUNS`] times at most. What follows a run of another session finds the caches
/// full of that one's weights and its own threads asleep (a wide session took 21 ms instead of 11.5): where there is time
/// for more, the first only warms, and does not count.
fn repeat(backend: &mut dyn Backend, mut run: DryRun, time: Duration) -> Result<Vec<Duration>, BackendError> {
    let mut timed = || run.run(backend);
    let first = timed()?;
    if first > time {
        return Ok(vec![first]);
    }
    let started = Instant::now();
    let mut durations = Vec::with_capacity(RUNS);
    loop {
        durations.push(timed()?);
        if durations.len() == RUNS || started.elapsed() >= time {
            return Ok(durations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(timed: &[&[u64]]) -> SizeRuns {
        let of_session = |timed: &&[u64]| timed.iter().copied().map(Duration::from_millis).collect();
        let first = Duration::from_millis(500);
        SizeRuns { rows: 1, first, timed: timed.iter().map(of_session).collect() }
    }

    #[test]
    fn a_size_takes_as_long_as_on_the_slowest_session() {
        let typical = |timed: &[&[u64]]| runs(timed).typical().as_millis();
        assert_eq!(typical(&[&[9, 5, 4, 6]]), 5);
        // Of both together the quartile would be the fast one's.
        let unlike: [&[u64]; 2] = [&[2, 2, 3, 2], &[8, 9, 8, 40]];
        assert_eq!((typical(&unlike), runs(&unlike).is_steady()), (8, true), "unlike is not unsteady");
        assert!(!runs(&[&[2, 2, 3, 2], &[3, 9, 9, 9]]).is_steady());
        assert_eq!((typical(&[]), typical(&[&[], &[]])), (500, 500), "the first run is all there is");
    }
}
