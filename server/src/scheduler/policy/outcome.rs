//! What a policy decides.

use std::fmt;
use std::time::Duration;

/// What a batch runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// One of the model's instances, beside the others.
    Narrow,
    /// The whole machine for one batch: while it runs, no other batch does.
    Wide,
}

impl Lane {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Narrow, Self::Wide];

    /// The name used in log fields and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Wide => "wide",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a batch was closed when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It holds as many rows as are worth running at once.
    Full,
    /// It holds all that was queued and fits together.
    Queue,
    /// It waited for more rows as long as the configuration allows.
    Delay,
    /// It waited for more rows, and one of its requests can wait no longer.
    Deadline,
    /// The server is stopping and runs what is left.
    Drain,
    /// A request of a failed batch, run alone.
    Retry,
}

impl CloseReason {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Queue, Self::Delay, Self::Deadline, Self::Drain, Self::Retry];

    /// The name used in log fields and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Queue => "queue",
            Self::Delay => "delay",
            Self::Deadline => "deadline",
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

/// Why a request was taken out of the queue without being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its caller has gone.
    Abandoned,
    /// Its deadline has passed, or it waited as long as its queue allows.
    Expired,
    /// Its deadline cannot be met, and there is other work: try again when it is done.
    Crowded {
        /// When that is likely.
        retry_after: Duration,
    },
    /// Its deadline is too short for this model, even on an idle device.
    Hopeless {
        /// What the model is expected to need.
        needs: Duration,
    },
}

/// A request taken out of the queue without being run.
#[derive(Debug, PartialEq, Eq)]
pub struct Dropped<J> {
    /// The request.
    pub job: J,
    /// Why.
    pub reason: DropReason,
}

/// Tells a batch that runs from all others: lanes end in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub(super) u64);

/// Requests to run together.
#[derive(Debug, PartialEq, Eq)]
pub struct ClosedBatch<J> {
    /// Which batch this is, for when it [ends](super::BatchPolicy::completed).
    pub id: RunId,
    /// What it runs on.
    pub lane: Lane,
    /// The requests, in the order of their rows.
    pub jobs: Vec<J>,
    /// Rows of all of them.
    pub rows: usize,
    /// Why it was closed.
    pub closed: CloseReason,
    /// How long it is expected to take.
    pub expected: Duration,
}

/// What to do now that an instance is free.
#[derive(Debug, PartialEq, Eq)]
pub struct Dispatch<J> {
    /// To be answered without being run.
    pub dropped: Vec<Dropped<J>>,
    /// To be run.
    pub batch: Option<ClosedBatch<J>>,
    /// When to ask again if nothing else happens before: requests wait for a fuller batch until then.
    pub wake_at: Option<Duration>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It would be too late, or would make another one too late: try again when some work is done.
    Crowded {
        /// When that is likely.
        retry_after: Duration,
    },
    /// As many requests wait as the configuration allows.
    QueueFull {
        /// When there is likely to be room.
        retry_after: Duration,
    },
    /// Its deadline is too short for this model, even on an idle device.
    Hopeless {
        /// What the model is expected to need.
        needs: Duration,
    },
}

/// A request that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<J> {
    /// The request.
    pub job: J,
    /// Why.
    pub reason: Refusal,
}
