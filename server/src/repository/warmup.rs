//! Before a model is ready, its batches have been run, and it is known how long they take in each shape.

mod candidate;
mod every_size;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shapes::{Choice, InstanceShape, Measurements};
use crate::scheduler::{DryRun, InstanceParts, Instances, Signature};
use candidate::{Candidate, SizeRuns};

/// Timed rounds over all sizes and shapes; the lower quartile counts.
const ROUNDS: usize = 5;
/// Rounds that must fit into the time before another size is measured instead of interpolated.
const ROUNDS_WANTED: u32 = 3;
/// Share of the whole time that a round spends on one size in one shape unless a single run takes longer.
const STEP: u32 = 60;
/// Batch sizes measured at most.
const MAX_SIZES: usize = 17;
/// Shapes that are always measured: with the fewest sessions and with the most.
const ALWAYS: usize = 2;

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

/// What was known is open again.
pub(crate) struct Recalled {
    /// The sessions of the shapes that were chosen.
    pub(crate) instances: Instances,
    /// Which those are.
    pub(crate) choice: Choice,
    /// Rows for which the device has memory, where that is less than the model may be asked for.
    pub(crate) fits: Option<usize>,
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
            if !self.has_open_dimensions() || candidates.is_empty() {
                return Err(detail);
            }
            tracing::warn!(model = %self.signature.model, detail, "The model cannot be measured: its dimensions are open");
            candidates.truncate(1);
            candidates[0].sizes = vec![SizeRuns::unknown()];
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
    pub(crate) fn recall(&self, known: &Measurements) -> Result<Recalled, String> {
        let choice = known.choose(true);
        if self.on_gpu {
            return self.recall_on_gpu(known, Choice { wide: None, ..choice });
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
                    outcome => outcome.map_err(|error| error.to_string())?,
                }
            }
            Ok::<_, String>(candidate.instances)
        };
        let narrow = open_warm(choice.narrow)?;
        let wide = choice.wide.map(open_warm).transpose()?.and_then(|mut opened| opened.pop());
        let choice = Choice { wide: wide.as_ref().and(choice.wide), ..choice };
        Ok(Recalled { instances: Instances { narrow, wide }, choice, fits: None })
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
                candidate.warm(&run, rows).map_err(|error| error.to_string())?;
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
                    let timed = candidate.time(run, *rows, self.time / STEP);
                    timed.map_err(|error| error.to_string())?;
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
