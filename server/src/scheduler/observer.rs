//! What the scheduler tells of itself, for metrics.

use std::fmt;
use std::time::Duration;

use crate::backend::{ExecutionProvider, ProviderNodes};

use service_kit::ErrorCode;

use super::policy::{DropReason, Lane, Refusal};

pub use super::policy::CloseReason;

/// Which model and version something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLabels<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// A request that was answered with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestReport {
    /// Rows of the request.
    pub rows: usize,
    /// From its arrival in the queue to its answer.
    pub total: Duration,
    /// From its arrival in the queue until an instance took it.
    pub queue: Duration,
    /// Time its batch took to be written.
    pub compute_input: Duration,
    /// Time its batch took in the model.
    pub compute_infer: Duration,
    /// Time its batch's outputs took to be split.
    pub compute_output: Duration,
}

/// A batch that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// Rows in it.
    pub rows: usize,
    /// Requests in it.
    pub requests: usize,
    /// What it ran on.
    pub lane: Lane,
    /// Why it was closed.
    pub closed: CloseReason,
    /// What the latency profile expected it to take in the model.
    pub expected: Duration,
    /// What it took to be written.
    pub compute_input: Duration,
    /// What it took in the model.
    pub duration: Duration,
    /// What its outputs took to be split.
    pub compute_output: Duration,
    /// Whether the model gave outputs.
    pub succeeded: bool,
}

/// Why a request was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// As many requests wait as may.
    QueueFull,
    /// The work before it takes longer than its deadline allows.
    Crowded,
    /// The model alone takes longer than its deadline allows.
    Hopeless,
    /// Its deadline passed while it waited.
    Expired,
    /// Its caller went away while it waited.
    Abandoned,
    /// The model is stopping or being rebuilt.
    Unavailable,
}

impl RefusalReason {
    pub(crate) const fn of_drop(reason: DropReason) -> Self {
        match reason {
            DropReason::Abandoned => Self::Abandoned,
            DropReason::Expired => Self::Expired,
            DropReason::Crowded { .. } => Self::Crowded,
            DropReason::Hopeless { .. } => Self::Hopeless,
        }
    }

    pub(crate) const fn of_refusal(reason: Refusal) -> Self {
        match reason {
            Refusal::Crowded { .. } => Self::Crowded,
            Refusal::QueueFull { .. } => Self::QueueFull,
            Refusal::Hopeless { .. } => Self::Hopeless,
        }
    }

    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::Crowded, Self::Hopeless, Self::Expired, Self::Abandoned, Self::Unavailable];

    /// The name used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Crowded => "crowded",
            Self::Hopeless => "hopeless",
            Self::Expired => "expired",
            Self::Abandoned => "abandoned",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Instances of a version that have no working backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokenInstances {
    /// So many of those that work side by side.
    pub broken: usize,
    /// So many there are of them.
    pub of: usize,
    /// Whether the one that has the whole machine is broken. The others do its work meanwhile.
    pub wide: bool,
    /// Why the last of them could not be made anew, without a full stop at its end; empty when none is broken.
    pub reason: String,
}

impl BrokenInstances {
    /// Whether nothing can be run.
    pub fn is_all(&self) -> bool {
        self.broken > 0 && self.broken == self.of
    }

    /// All of them, the wide one too.
    pub fn count(&self) -> usize {
        self.broken + usize::from(self.wide)
    }
}

impl fmt::Display for BrokenInstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broken, of, wide, reason } = self;
        match (self.is_all(), broken, wide) {
            (true, ..) => write!(f, "no instance works, and they cannot be made anew: {reason}"),
            (false, 0, true) => write!(f, "the session with all cores is broken: {reason}"),
            (false, 0, false) => Ok(()),
            (false, ..) => write!(f, "{broken} of {of} instances are broken: {reason}"),
        }
    }
}

/// Where a request was when it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It had just arrived.
    Arrival,
    /// It had been accepted and waited.
    Queue,
}

impl Stage {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Arrival, Self::Queue];

    /// The name used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Queue => "queue",
        }
    }
}

/// Why an execution was for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadWork {
    /// The answer came after the deadline.
    Late,
    /// The caller had gone when the answer came.
    Abandoned,
    /// The model failed on it.
    Failed,
}

impl DeadWork {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Late, Self::Abandoned, Self::Failed];

    /// The name used in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }
}

/// Told what the scheduler does, from its own threads and from callers' tasks. Must be quick: metrics, no I/O.
pub trait ServingObserver: Send + Sync {
    /// A request got its result.
    fn request_succeeded(&self, labels: ModelLabels<'_>, report: &RequestReport);
    /// A request was answered with an error of this code.
    fn request_failed(&self, labels: ModelLabels<'_>, code: ErrorCode);
    /// A request's caller went away before it was executed.
    fn request_abandoned(&self, labels: ModelLabels<'_>);
    /// A batch was run.
    fn batch_executed(&self, labels: ModelLabels<'_>, report: &BatchReport);
    /// This many requests wait in the queue now.
    fn pending_requests(&self, labels: ModelLabels<'_>, count: usize);

    /// A request of which the scheduler knows nothing was answered with an error of this code.
    fn request_failed_elsewhere(&self, labels: ModelLabels<'_>, code: ErrorCode) {
        self.request_failed(labels, code);
    }

    /// A request was not executed. Told besides [`ServingObserver::request_failed`] and
    /// [`ServingObserver::request_abandoned`], which say what its caller was answered.
    fn request_refused(&self, _labels: ModelLabels<'_>, _reason: RefusalReason, _stage: Stage) {}
    /// Rows of a request were executed for nobody; `compute` is their share of the batch's time in the model.
    fn work_wasted(&self, _labels: ModelLabels<'_>, _why: DeadWork, _rows: usize, _compute: Duration) {}
    /// The objective that was configured and the one that is kept; `None`: only callers' deadlines count.
    fn objective(&self, _: ModelLabels<'_>, _configured: Option<Duration>, _effective: Option<Duration>) {}

    /// So many of the version's instances are broken from now on; they are tried to be made anew from time to time.
    fn instances_broken(&self, _: ModelLabels<'_>, _: &BrokenInstances) {}

    /// The version runs on this execution provider; `fell_back`: because it could not run where it was to.
    fn placed(&self, _: ModelLabels<'_>, _provider: ExecutionProvider, _fell_back: bool) {}

    /// A batch may have so many rows from now on: at the start, and when the device had no memory for one.
    fn batch_limit(&self, _: ModelLabels<'_>, _rows: usize) {}

    /// The version's graph has these nodes, by the execution provider that runs them.
    fn placed_nodes(&self, _: ModelLabels<'_>, _nodes: &[ProviderNodes]) {}

    /// An observer of this version alone, which may know by heart what it needs for it. It is told the same, and
    /// dropped when the version is unloaded. `None`: this one will do.
    fn of_version(&self, _labels: ModelLabels<'_>) -> Option<std::sync::Arc<dyn ServingObserver>> {
        None
    }
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl ServingObserver for NoObserver {
    fn request_succeeded(&self, _: ModelLabels<'_>, _: &RequestReport) {}
    fn request_failed(&self, _: ModelLabels<'_>, _: ErrorCode) {}
    fn request_abandoned(&self, _: ModelLabels<'_>) {}
    fn batch_executed(&self, _: ModelLabels<'_>, _: &BatchReport) {}
    fn pending_requests(&self, _: ModelLabels<'_>, _: usize) {}
}
