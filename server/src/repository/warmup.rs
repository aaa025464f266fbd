//! Before a model is ready, its batches have been run, and it is known how long they take in each shape.

use std::collections::VecDeque;
use std::iter::once;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::shapes::{Choice, InstanceShape, Measurements, ShapeLatencies};
use crate::backend::{Backend, BackendError, FailureKind};
use crate::scheduler::{DryRun, InstanceParts, Instances, Signature};

/// Timed rounds over all sizes and shapes; the lower quartile counts.
const ROUNDS: usize = 5;
/// Rounds that must fit into the time before another size is measured instead of interpolated.
const ROUNDS_WANTED: u32 = 3;
/// Runs of one size in one round at most, for models so fast that one run says little.
const RUNS: usize = 4;
/// Share of the whole time that a round spends on one size in one shape unless a single run takes longer.
const STEP: u32 = 60;
/// Batch sizes measured at most.
const MAX_SIZES: usize = 17;
/// Shapes that are always measured: with the fewest sessions and with the most.
const ALWAYS: usize = 2;
/// Milliseconds that a model is taken to need when it cannot be measured.
const UNKNOWN_MS: f64 = 10.0;
/// A quartile over so many times the minimum says more about the machine's other work than about the model.
const STEADY: u32 = 2;

/// Opens one session: number of the instance, threads. The error is in words for the middle of a sentence.
pub(crate) type Open<'a> = dyn Fn(usize, usize) -> Result<InstanceParts, String> + 'a;

/// A model whose sessions are opened, warmed and measured.
pub(crate) struct Warmup<'a> {
    /// What the model takes.
    pub(crate) signature: &'a Arc<Signature>,
    /// Opens its sessions.
    pub(crate) open: &'a Open<'a>,
    /// What measuring may take, besides what must be opened and run anyway.
    pub(crate) time: Duration,
    /// Whether it runs on a GPU, where every batch size must have been run once in this process: each new shape loads
    /// kernels and searches algorithms, for longer than a request can wait.
    pub(crate) on_gpu: bool,
}

/// What learning gave.
pub(crate) struct Learned {
    /// The sessions of the shapes that were chosen.
    pub(crate) instances: Instances,
    /// Which those are.
    pub(crate) choice: Choice,
    /// What was measured.
    pub(crate) measurements: Measurements,
    /// Whether the machine was quiet enough for the measurements to be worth keeping.
    pub(crate) steady: bool,
    /// Rows for which the device has memory, where that is less than the model may be asked for.
    pub(crate) fits: Option<usize>,
}

/// The open sessions of one shape, and what their runs took.
struct Candidate {
    shape: InstanceShape,
    instances: Vec<InstanceParts>,
    sizes: Vec<SizeRuns>,
    /// Rows for which the device has memory, where that is less than the model may be asked for.
    fits: Option<usize>,
}

/// Runs of one batch size in one shape.
struct SizeRuns {
    rows: usize,
    /// The first run allocates and, on a GPU, chooses its algorithms: it counts only if there is no other.
    first: Duration,
    timed: Vec<Duration>,
}

impl SizeRuns {
    /// The lower quartile: what else the machine does meanwhile only ever adds, and a quarter of the runs had it quiet. A
    /// median made one shape look twice as slow as another when most of its runs fell into a slow moment.
    fn typical(&self) -> Duration {
        let mut timed = self.timed.clone();
        timed.sort_unstable();
        timed.get(timed.len() / 4).copied().unwrap_or(self.first)
    }

    fn is_steady(&self) -> bool {
        self.timed.iter().min().is_none_or(|&shortest| self.typical() <= shortest * STEADY)
    }
}

impl Warmup<'_> {
    /// Opens sessions of each shape, runs and times every batch size worth knowing, for as long as the time allows,
    /// and chooses the shapes that serve. One row and the largest batch are run whatever it takes: what is wrong with
    /// the model shows in one of them.
    ///
    /// # Errors
    /// When the model fails on its own kind of input, in words for the middle of a sentence. A model with open
    /// dimensions besides the batch's may want others than are tried here, and is then taken as it is.
    pub(crate) fn learn(&self, shapes: &[InstanceShape]) -> Result<Learned, String> {
        let started = Instant::now();
        let mut candidates = Vec::with_capacity(shapes.len());
        for (at, &shape) in shapes.iter().enumerate() {
            // What is left out here costs some throughput at most.
            if at >= ALWAYS && started.elapsed() >= self.time / 2 {
                break;
            }
            match self.candidate(shape) {
                Ok(candidate) => candidates.push(candidate),
                Err(detail) if at == 0 => return Err(detail),
                Err(detail) => {
                    tracing::warn!(model = %self.signature.model, detail, "No {shape}: they cannot be opened");
                }
            }
        }
        let measured = match self.on_gpu {
            true => self.measure_every_size(&mut candidates),
            false => self.measure(&mut candidates, Instant::now()),
        };
        if let Err(detail) = measured {
            if !self.has_open_dimensions() {
                return Err(detail);
            }
            tracing::warn!(model = %self.signature.model, detail, "The model cannot be measured: its dimensions are open");
            candidates.truncate(1);
            candidates[0].sizes = vec![unknown()];
        }
        let steady = candidates.iter().all(|candidate| candidate.sizes.iter().all(SizeRuns::is_steady));
        let measurements = Measurements(candidates.iter().map(Candidate::latencies).collect());
        let mut choice = measurements.choose(steady);
        if self.on_gpu {
            // Whatever one session leaves idle of a GPU is the other's anyway.
            choice.wide = None;
        }
        let fits = candidates[choice.narrow].fits;
        let mut instances = Instances { narrow: Vec::new(), wide: None };
        for (at, mut candidate) in candidates.into_iter().enumerate() {
            if at == choice.narrow {
                instances.narrow = candidate.instances;
            } else if Some(at) == choice.wide {
                instances.wide = candidate.instances.pop();
            }
        }
        Ok(Learned { instances, choice, measurements, steady, fits })
    }

    /// Opens and warms the sessions of shapes that are known to be the best: nothing is measured.
    ///
    /// # Errors
    /// As [`Warmup::learn`].
    pub(crate) fn recall(&self, known: &Measurements) -> Result<(Instances, Option<usize>), String> {
        let choice = known.choose(true);
        if self.on_gpu {
            let mut candidate = self.candidate(known.0[choice.narrow].shape)?;
            match self.warm_every_size(&mut candidate) {
                Err(detail) if !self.has_open_dimensions() => return Err(detail),
                _ => return Ok((candidate.instances.into(), candidate.fits)),
            }
        }
        let open_warm = |at: usize| {
            let latencies = &known.0[at];
            let mut candidate = self.candidate(latencies.shape)?;
            let started = Instant::now();
            for (at, rows) in sizes(self.signature.max_batch_size).into_iter().enumerate() {
                if at >= ENDS && started.elapsed() >= self.time / 10 {
                    break;
                }
                match candidate.warm(&self.dry_run(rows)?, rows) {
                    Err(_) if self.has_open_dimensions() => break,
                    outcome => outcome?,
                }
            }
            Ok::<_, String>(candidate.instances)
        };
        let narrow = open_warm(choice.narrow)?;
        let wide = choice.wide.map(open_warm).transpose()?.and_then(|mut opened| opened.pop());
        Ok((Instances { narrow, wide }, None))
    }

    fn candidate(&self, shape: InstanceShape) -> Result<Candidate, String> {
        let open = |number| (self.open)(number, shape.threads);
        let instances = (0..shape.instances).map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Candidate { shape, instances, sizes: Vec::new(), fits: None })
    }

    /// Runs every batch size on every session, then times all of them in rounds: one whatever it takes, and more while
    /// there is time.
    fn measure_every_size(&self, candidates: &mut Vec<Candidate>) -> Result<(), String> {
        for at in (0..candidates.len()).rev() {
            match self.warm_every_size(&mut candidates[at]) {
                Ok(()) => {}
                Err(detail) if at == 0 => return Err(detail),
                // More sessions need more of the device's memory.
                Err(detail) => {
                    let shape = candidates.remove(at).shape;
                    tracing::warn!(model = %self.signature.model, detail, "No {shape}: they do not run");
                }
            }
        }
        let started = Instant::now();
        for round in 0..ROUNDS {
            for rows in 1..=self.signature.max_batch_size.max(1) {
                let run = self.dry_run(rows)?;
                for candidate in candidates.iter_mut().filter(|candidate| candidate.has_run(rows)) {
                    if round > 0 && started.elapsed() >= self.time {
                        return Ok(());
                    }
                    candidate.time(&run, rows, self.time / STEP)?;
                }
            }
        }
        Ok(())
    }

    /// Runs every batch size once on every session: one row, the largest, for which the device takes its memory, and all
    /// others from small to large. The device may not have memory for all of them: then the largest that ran is noted.
    fn warm_every_size(&self, candidate: &mut Candidate) -> Result<(), String> {
        let most = self.signature.max_batch_size.max(1);
        for rows in once(1).chain((most > 1).then_some(most)).chain(2..most) {
            match candidate.first_run(&self.dry_run(rows)?, rows) {
                Ok(()) => {}
                Err(error) if error.kind() == FailureKind::OutOfMemory && rows > 1 => {
                    tracing::warn!(model = %self.signature.model, rows, %error, "Batches of {rows} rows do not fit");
                    if rows < most {
                        candidate.fits = Some(rows - 1);
                        return Ok(());
                    }
                    candidate.fits = Some(most - 1);
                }
                Err(error) => return Err(failed_on_zeros(rows, &error)),
            }
        }
        Ok(())
    }

    fn measure(&self, candidates: &mut [Candidate], started: Instant) -> Result<(), String> {
        let mut runs: Vec<(usize, DryRun)> = Vec::new();
        // In the time that is left, one more round over all sizes known so far, as often as it is wanted.
        let mut round = Duration::ZERO;
        for (at, rows) in sizes(self.signature.max_batch_size).into_iter().enumerate() {
            let cost: Duration = candidates.iter().map(|candidate| candidate.expected(rows)).sum();
            let needed = cost + (round + cost) * ROUNDS_WANTED;
            if at >= ENDS && started.elapsed() + needed > self.time {
                break;
            }
            let run = self.dry_run(rows)?;
            for candidate in &mut *candidates {
                candidate.warm(&run, rows)?;
                round += candidate.expected(rows);
            }
            runs.push((rows, run));
        }
        // In rounds, so that whatever else the machine does meanwhile slows all sizes and shapes and not one of them.
        for _ in 0..ROUNDS {
            for (rows, run) in &runs {
                for candidate in &mut *candidates {
                    if started.elapsed() >= self.time {
                        return Ok(());
                    }
                    candidate.time(run, *rows, self.time / STEP)?;
                }
            }
        }
        Ok(())
    }

    fn dry_run(&self, rows: usize) -> Result<DryRun, String> {
        DryRun::of_zeros(self.signature, rows).map_err(|error| error.to_string())
    }

    fn has_open_dimensions(&self) -> bool {
        self.signature.inputs.iter().any(|input| input.tensor.dims.iter().any(|&dim| dim < 0))
    }
}

impl Candidate {
    /// Runs a batch for the first time, on every session.
    fn warm(&mut self, run: &DryRun, rows: usize) -> Result<(), String> {
        self.first_run(run, rows).map_err(|error| failed_on_zeros(rows, &error))
    }

    fn first_run(&mut self, run: &DryRun, rows: usize) -> Result<(), BackendError> {
        let durations = self.step(run, Duration::ZERO)?;
        let first = durations.into_iter().max().unwrap_or_default();
        self.sizes.push(SizeRuns { rows, first, timed: Vec::new() });
        Ok(())
    }

    fn time(&mut self, run: &DryRun, rows: usize, time: Duration) -> Result<(), String> {
        let durations = self.step(run, time).map_err(|error| error.to_string())?;
        if let Some(size) = self.sizes.iter_mut().find(|size| size.rows == rows) {
            size.timed.extend(durations);
        }
        Ok(())
    }

    fn has_run(&self, rows: usize) -> bool {
        self.sizes.iter().any(|size| size.rows == rows)
    }

    /// Runs a batch on every session, all at once as under load; again for as long as there is time.
    fn step(&mut self, run: &DryRun, time: Duration) -> Result<Vec<Duration>, BackendError> {
        if let [only] = &mut *self.instances {
            return repeat(only.backend.as_mut(), run.clone(), time);
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
            let mut durations = Vec::new();
            for thread in running {
                durations.extend(thread.join().map_err(|_| BackendError::new("it panicked"))??);
            }
            Ok(durations)
        })
    }

    /// What a batch is likely to take, from the sizes that were run: every row the same.
    fn expected(&self, rows: usize) -> Duration {
        let nearest = self.sizes.iter().min_by_key(|size| size.rows.abs_diff(rows));
        nearest.map_or(Duration::ZERO, |size| size.first.mul_f64(rows as f64 / size.rows as f64))
    }

    fn latencies(&self) -> ShapeLatencies {
        let milliseconds = |size: &SizeRuns| (size.rows, size.typical().as_secs_f64() * 1e3);
        let mut milliseconds: Vec<_> = self.sizes.iter().map(milliseconds).collect();
        milliseconds.sort_unstable_by_key(|&(rows, _)| rows);
        ShapeLatencies { shape: self.shape, milliseconds }
    }
}

fn failed_on_zeros(rows: usize, error: &BackendError) -> String {
    format!("it fails on a batch of {rows} with nothing but zeros: {error}")
}

fn unknown() -> SizeRuns {
    SizeRuns { rows: 1, first: Duration::from_secs_f64(UNKNOWN_MS / 1e3), timed: Vec::new() }
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

/// Batch sizes that are always run: the smallest and the largest.
const ENDS: usize = 2;

/// One row, then the largest batch, then the middle between two known ones, the widest gaps first: what is left out
/// for lack of time lies between the known.
fn sizes(max_batch_size: usize) -> Vec<usize> {
    if max_batch_size <= 1 {
        return vec![1];
    }
    let mut sizes = vec![1, max_batch_size];
    let mut gaps = VecDeque::from([(1, max_batch_size)]);
    while let Some((low, high)) = gaps.pop_front()
        && sizes.len() < MAX_SIZES
    {
        let middle = usize::midpoint(low, high);
        if middle > low {
            sizes.push(middle);
            gaps.extend([(low, middle), (middle, high)]);
        }
    }
    sizes
}

#[cfg(test)]
mod tests;
