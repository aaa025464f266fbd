//! What a policy keeps to: the model's limits, the objective, and what `dynamic_batching` asks for.

use std::collections::BTreeMap;
use std::time::Duration;

/// Limits of a [`BatchPolicy`](super::BatchPolicy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Rows of a batch at most.
    pub max_batch_size: usize,
    /// Narrow instances: batches that run side by side.
    pub lanes: usize,
    /// Whether there is a [wide lane](super::Lane::Wide) besides.
    pub wide: bool,
    /// The latency objective: what a request may take from its arrival in the queue to its answer. `None`: only
    /// callers' own deadlines count.
    pub slo: Option<Duration>,
    /// Batch sizes (rows) worth waiting for, ascending; empty: the profile decides.
    pub preferred_batch_sizes: Vec<usize>,
    /// How long a request may wait for a preferred batch size while an instance is idle. Zero: not at all.
    pub max_queue_delay: Duration,
    /// Run and answer requests in the order in which they arrived, one batch after the other.
    pub preserve_ordering: bool,
    /// Priorities that requests may have, 1 (the first to run) to this. 0: one, and what requests say is ignored.
    pub priority_levels: u32,
    /// The priority of requests that name none, or one that does not exist.
    pub default_priority: u32,
    /// Limits of a priority's queue where [`queue_policies`](Self::queue_policies) has none.
    pub default_queue_policy: QueuePolicy,
    /// Limits of the queues of single priorities.
    pub queue_policies: BTreeMap<u32, QueuePolicy>,
}

impl PolicyLimits {
    /// Limits of a model of which nothing but its batch size and its instances is known: no objective, one priority,
    /// no waiting.
    pub fn new(max_batch_size: usize, lanes: usize) -> Self {
        Self {
            max_batch_size: max_batch_size.max(1),
            lanes: lanes.max(1),
            wide: false,
            slo: None,
            preferred_batch_sizes: Vec::new(),
            max_queue_delay: Duration::ZERO,
            preserve_ordering: false,
            priority_levels: 0,
            default_priority: 1,
            default_queue_policy: QueuePolicy::default(),
            queue_policies: BTreeMap::new(),
        }
    }
}

/// Limits of one priority's queue.
///
/// Triton's `allow_timeout_override` needs no place here: a request's own timeout always counts, as a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Requests that may wait. `None`: as many as can be run in time.
    pub max_queue_size: Option<usize>,
    /// How long a request may wait to be run.
    pub timeout: Option<Duration>,
}
