//! What the scheduler tells of itself, for metrics.

use std::fmt;
use std::time::Duration;

use service_kit::ErrorCode;

/// Why a batch was closed when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It holds as many rows as are worth running at once.
    Full,
    /// It holds all that was queued and fits together.
    Queue,
    /// The server is stopping and runs what is left.
    Drain,
    /// A request of a failed batch, run alone.
    Retry,
}

impl CloseReason {
    /// The name used in log fields and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Queue => "queue",
            Self::Drain => "drain",
            Self::Retry => "retry",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

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
    /// Why it was closed.
    pub closed: CloseReason,
    /// What the latency profile expected it to take in the model.
    pub expected: Duration,
    /// What it took in the model.
    pub duration: Duration,
    /// Whether the model gave outputs.
    pub succeeded: bool,
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
