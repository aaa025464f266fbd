//! Every policy on the same arrivals.

use std::time::Duration;

use super::baselines::{Baseline, Kind, Setting};
use super::convoy::Convoy;
use super::device::Device;
use super::engine::{Outcome, Policy, run};
use super::traffic::{Pattern, Random};

/// Mean arrivals over what the device can do within the objective.
pub(crate) const LOADS: [f64; 7] = [0.1, 0.5, 0.9, 1.0, 1.5, 2.0, 5.0];
/// Latency objectives in milliseconds.
pub(crate) const OBJECTIVES_MS: [u64; 2] = [20, 100];

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Traces of each kind.
    pub(crate) seeds: u64,
    /// Of these, how many are used to find the best setting of a baseline.
    pub(crate) sweep_seeds: u64,
    /// Requests in a trace at a load of 1, about.
    pub(crate) requests: f64,
    /// At least so long is a trace.
    pub(crate) shortest: Duration,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) device: Device,
    pub(crate) pattern: Pattern,
    pub(crate) objective: Duration,
    pub(crate) load: f64,
}

impl Cell {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for device in Device::ALL {
            for pattern in Pattern::ALL {
                for objective in OBJECTIVES_MS.map(Duration::from_millis) {
                    cells.extend(LOADS.map(|load| Self { device, pattern, objective, load }));
                }
            }
        }
        cells
    }

    /// Whether both are of one curve over the load.
    pub(crate) fn same_curve(&self, other: &Self) -> bool {
        (self.device, self.pattern, self.objective) == (other.device, other.pattern, other.objective)
    }
}

/// What came of it, over all traces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// Answers in time a second.
    pub(crate) rate: f64,
    /// The same, as a share of what was offered or of the capacity, whichever is less.
    pub(crate) goodput: f64,
    pub(crate) p50_ms: f32,
    pub(crate) p99_ms: f32,
    /// Rows of a batch in the mean.
    pub(crate) batch: f64,
    /// Of those that were run.
    pub(crate) late: f64,
    /// Of those that came, refused at once.
    pub(crate) refused: f64,
    /// Of those that came, accepted and given up later.
    pub(crate) dropped: f64,
}

/// A cell and what each policy made of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) ours: Summary,
    pub(crate) baselines: Vec<Measured>,
}

/// A baseline as it comes, and with the best setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) plain: Summary,
    pub(crate) setting: Setting,
    pub(crate) tuned: Summary,
}

impl Row {
    /// The best that any baseline reached with any setting.
    pub(crate) fn best(&self) -> &Measured {
        let best = self.baselines.iter().max_by(|a, b| a.tuned.rate.total_cmp(&b.tuned.rate));
        best.expect("there are baselines")
    }

    /// Ours over the best.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.rate / self.best().tuned.rate
    }

    /// The baseline without delay and as it comes.
    pub(crate) fn without_delay(&self) -> &Summary {
        &self.baselines[0].plain
    }
}

/// The traces of a cell.
struct Traces {
    cell: Cell,
    traces: Vec<Vec<Duration>>,
    length: Duration,
}

impl Traces {
    fn new(cell: Cell, scale: &Scale) -> Self {
        let capacity = cell.device.capacity(cell.objective);
        let length = Duration::from_secs_f64(scale.requests / capacity).max(scale.shortest);
        let trace = |seed| cell.pattern.arrivals(capacity * cell.load, length, &mut Random::new(seed));
        Self { cell, traces: (0..scale.seeds).map(trace).collect(), length }
    }

    /// Lets a policy serve the first `count` traces.
    fn serve(&self, count: u64, policy: impl Fn() -> Box<dyn Policy>) -> Summary {
        let mut total = Outcome::default();
        let count = self.traces.len().min(count as usize);
        for (seed, trace) in (1000..).zip(&self.traces[..count]) {
            let mut random = Random::new(seed);
            let mut device = |_, rows| self.cell.device.run(rows, &mut random);
            total.add(&run(&mut *policy(), &mut device, trace, self.cell.objective));
        }
        self.summary(total, count)
    }

    fn summary(&self, mut total: Outcome, traces: usize) -> Summary {
        total.latencies_ms.sort_unstable_by(f32::total_cmp);
        let latencies = &total.latencies_ms;
        let quantile = |share: f64| {
            let at = (latencies.len() as f64 * share) as usize;
            latencies.get(at.min(latencies.len().saturating_sub(1))).copied().unwrap_or(f32::NAN)
        };
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let rate = total.in_time as f64 / (self.length.as_secs_f64() * traces as f64);
        let capacity = self.cell.device.capacity(self.cell.objective);
        Summary {
            rate,
            goodput: rate / (capacity * self.cell.load.min(1.0)),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            batch: share(total.executed(), total.batches),
            late: share(total.late, total.executed()),
            refused: share(total.refused, total.offered),
            dropped: share(total.dropped, total.offered),
        }
    }
}

/// Simulates one cell.
pub(crate) fn study(cell: Cell, scale: &Scale, sweep: fn(Kind) -> Vec<Setting>) -> Row {
    let traces = Traces::new(cell, scale);
    let (device, objective) = (cell.device, cell.objective);
    let of = |setting, count| {
        traces.serve(count, move || Box::new(Baseline::new(setting, device, objective)) as Box<dyn Policy>)
    };
    let measure = |kind| {
        let plain = of(Setting::plain(kind), scale.seeds);
        let tried = sweep(kind).into_iter().map(|setting| (setting, of(setting, scale.sweep_seeds).rate));
        let best = tried.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(Setting::plain(kind), |tried| tried.0);
        let tuned = of(best, scale.seeds);
        // The best of a few traces may be worse on all.
        if tuned.rate >= plain.rate {
            Measured { plain, setting: best, tuned }
        } else {
            Measured { plain, setting: Setting::plain(kind), tuned: plain }
        }
    };
    let ours = traces.serve(scale.seeds, || Box::new(Convoy::new(device, objective, 1.0)));
    Row { cell, ours, baselines: Kind::ALL.into_iter().map(measure).collect() }
}
