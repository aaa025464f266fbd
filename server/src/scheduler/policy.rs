//! Which requests run next, and which are not worth running at all: a pure state machine that is handed `now`.
//!
//! **Architecture invariant:** no clock, no threads, no tokio, no tonic, no ort. Time is a [`Duration`] since any fixed
//! instant, so that tests and simulations invent it.
//!
//! * Earliest deadline first; in order of arrival among equals. A lower priority counts as a later deadline, so that
//!   whoever waits long enough is next.
//! * Never wait for a fuller batch unless the configuration asks for it: what is queued when an instance is free,
//!   runs. Load fills batches by itself.
//! * Window drop: at dispatch, requests are dropped until the batch that will *really* run (all that is queued, up to
//!   the preferred size) is in time for each of its requests. Looking instead for the largest batch that the head
//!   still makes lets batches shrink to one just when they must be full.
//! * Refusal at arrival: who would be dropped then, is told at once.
//! * Plans are made with the 99 % quantile of the [profile](super::LatencyProfile), queues are predicted by its mean.
//!
//! | module | what it holds |
//! |---|---|
//! | `limits`, `outcome` | what goes in and comes out |
//! | `queue` | the requests, in order |
//! | `lanes` | what runs, and when the next batches can start |
//! | `admit` | is a request taken? |
//! | `dispatch` | what runs now? |
//! | `trials` | the lane that looks slower, tried now and then |

mod admit;
mod dispatch;
mod lanes;
mod limits;
mod outcome;
mod queue;
mod trials;

use std::time::Duration;

use super::profile::Profiles;
use admit::ArrivalRate;
use lanes::Lanes;
use queue::{Entry, Position, Queue};
use trials::Trials;

pub use limits::{PolicyLimits, QueuePolicy};
pub use outcome::{CloseReason, ClosedBatch, Dispatch, DropReason, Dropped, Lane, Refusal, Refused, RunId};

/// Time kept free for what surrounds a batch: writing it, splitting it, waking the callers.
const GUARD: Duration = Duration::from_micros(200);
/// One part in so many of a request's time is kept free, too: for its answer's way to a caller on a machine that has no
/// time to spare. Who is overloaded loses nothing by it; with the deadline itself as the aim, up to 1 % of the answers came
/// just after an objective of 100 ms, over loopback with the client on the same two cores.
const KEPT_FREE: u32 = 100;
/// And what is known of that way ([`BatchPolicy::set_way`]), but for no more than one part in so many.
const MOST_KEPT_FREE: u32 = 10;
/// After so long without a run, one request is run whatever the profile predicts: a profile that a stall has made
/// too pessimistic would otherwise refuse everything, and never be corrected.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// Work that may be queued, in time: who has no deadline, or a distant one, waits no longer than that.
const LONGEST_QUEUE: Duration = Duration::from_secs(10);
/// By how much a request may be overtaken by those of the next higher priority that come after it.
const PRIORITY_STEP: Duration = Duration::from_secs(1);
/// After so long without a single run, one request of a priority counts as one of the highest.
const STARVED_AFTER: Duration = Duration::from_secs(1);
/// A server is taken to have time to spare when for so long fewer requests arrived than it can run.
const CALM_AFTER: Duration = Duration::from_secs(1);
/// How much slower or faster than planned for a device must be for the plan to be made anew.
const REPLAN: f64 = 1.3;

/// What the policy wants to know of a request.
pub trait Job {
    /// Rows it adds to a batch, at least 1.
    fn rows(&self) -> usize;
    /// When its answer is worth nothing any more: the earlier of the caller's own deadline and the objective.
    fn deadline(&self) -> Option<Duration>;
    /// Whether the caller gave a deadline, or the objective alone makes it.
    fn has_own_deadline(&self) -> bool;
    /// 1 is the first to run; 0 is the model's default.
    fn priority(&self) -> u32;
    /// Whether its caller has gone.
    fn is_abandoned(&self) -> bool;
    /// Whether both can be rows of one batch.
    fn batches_with(&self, other: &Self) -> bool;
}

/// What is decided once for a device, and again when it has become another.
#[derive(Debug)]
struct Plan {
    /// Rows of a batch that is full.
    batch: usize,
    /// The objective that is kept.
    objective: Option<Duration>,
    /// The profile's factor that this was planned with.
    factor: f64,
}

/// One priority.
#[derive(Debug)]
struct Level {
    policy: QueuePolicy,
    queued: usize,
    /// Since when requests of it have been turned away and none was run.
    starving_since: Option<Duration>,
}

/// The queue of one model version, and the decisions about it.
#[derive(Debug)]
pub struct BatchPolicy<J> {
    limits: PolicyLimits,
    profiles: Profiles,
    plan: Plan,
    queue: Queue<J>,
    /// The priorities, the first to run first; at least one.
    levels: Vec<Level>,
    lanes: Lanes,
    trials: Trials,
    arrivals: ArrivalRate,
    /// When there were last about as many arrivals as can be run.
    crowded_at: Duration,
    /// When a batch last started or ended.
    last_activity: Duration,
    draining: bool,
    /// What requests take into the queue, and answers back to their callers, about.
    way: Duration,
    /// Taken out of the queue, and not yet handed out.
    dropped: Vec<Dropped<J>>,
    /// When the queue was last searched for requests that nobody waits for.
    swept_at: Duration,
    /// Members of the batch that is being looked at.
    members: Vec<Position>,
}

impl<J: Job> BatchPolicy<J> {
    /// An empty queue for a device with these profiles.
    pub fn new(limits: PolicyLimits, profiles: Profiles) -> Self {
        let plan = Plan::new(&limits, &profiles);
        let level = |number| Level {
            policy: limits.queue_policies.get(&number).copied().unwrap_or(limits.default_queue_policy),
            queued: 0,
            starving_since: None,
        };
        Self {
            levels: (1..=limits.priority_levels.max(1)).map(level).collect(),
            lanes: Lanes::new(if limits.preserve_ordering { 1 } else { limits.lanes }),
            trials: Trials::default(),
            limits,
            profiles,
            plan,
            queue: Queue::new(),
            arrivals: ArrivalRate::default(),
            crowded_at: Duration::ZERO,
            last_activity: Duration::ZERO,
            draining: false,
            way: Duration::ZERO,
            dropped: Vec::new(),
            swept_at: Duration::ZERO,
            members: Vec::new(),
        }
    }

    /// Takes in that a batch has ended; `duration` is what the model took, `None` when it failed.
    ///
    /// What counts is how long the lane was in use: writing and splitting the batch are part of that.
    pub fn completed(&mut self, now: Duration, id: RunId, duration: Option<Duration>) {
        let ended = self.lanes.end(id);
        self.last_activity = now;
        if let (Some(run), Some(duration)) = (ended, duration) {
            let in_use = now.saturating_sub(run.started);
            if run.lane == Lane::Narrow {
                self.trials.note_narrow();
            }
            self.profiles.of_mut(run.lane).observe(run.rows, in_use.max(duration));
            let change = self.profiles.narrow.factor() / self.plan.factor;
            if !(1.0 / REPLAN..=REPLAN).contains(&change) {
                self.plan = Plan::new(&self.limits, &self.profiles);
            }
        }
    }

    /// From now on so many of the narrow lanes work, and nothing is planned for the others.
    pub fn set_working_lanes(&mut self, lanes: usize) {
        self.lanes.set_working(if self.limits.preserve_ordering { 1 } else { lanes });
    }

    /// From now on batches have no more than so many rows, but for a request that has more by itself.
    pub fn limit_batches(&mut self, rows: usize) {
        self.limits.max_batch_size = rows.clamp(1, self.limits.max_batch_size);
        self.plan = Plan::new(&self.limits, &self.profiles);
    }

    /// Rows that a batch may have.
    pub fn max_batch_size(&self) -> usize {
        self.limits.max_batch_size
    }

    /// From now on answers are taken to need so long to their callers. Of a request's time a tenth is kept free for it at
    /// most, for a client that is slow to send says nothing of the server's cores.
    pub fn set_way(&mut self, way: Duration) {
        self.way = way;
    }

    /// From now on batches are closed because the server is stopping.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes out every request, for when nothing can run them.
    pub fn take_all(&mut self) -> Vec<J> {
        for level in &mut self.levels {
            level.queued = 0;
        }
        let dropped = self.dropped.drain(..).map(|dropped| dropped.job);
        let queue = &mut self.queue;
        dropped.chain(std::iter::from_fn(|| queue.pop_front()).map(|entry| entry.job)).collect()
    }

    /// Takes out every request that nobody waits for any more, or that is too late.
    pub fn take_dead(&mut self, now: Duration) -> Vec<Dropped<J>> {
        self.sweep(now);
        std::mem::take(&mut self.dropped)
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// Rows that are worth running at once on this device.
    pub fn preferred_batch_size(&self) -> usize {
        self.plan.batch
    }

    /// What is known about this device.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The latency objective as it was configured.
    pub fn configured_objective(&self) -> Option<Duration> {
        self.limits.slo
    }

    /// The latency objective that requests are held to: the configured one; or twice the 99 % quantile of a single
    /// row when that quantile is over half of it, for less could not be kept on this device.
    pub fn objective(&self) -> Option<Duration> {
        self.plan.objective
    }

    /// When the answer to a request that arrives `now` is worth nothing any more: `own` is its caller's deadline.
    pub fn deadline(&self, now: Duration, own: Option<Duration>) -> Option<Duration> {
        let objective = self.plan.objective.map(|objective| now.saturating_add(objective));
        own.into_iter().chain(objective).min()
    }

    /// The number of a priority that exists.
    fn level_of(&self, priority: u32) -> u32 {
        let levels = u32::try_from(self.levels.len()).unwrap_or(u32::MAX);
        if (1..=levels).contains(&priority) {
            priority
        } else {
            self.limits.default_priority.clamp(1, levels)
        }
    }

    fn level(&mut self, number: u32) -> &mut Level {
        let at = (number as usize).saturating_sub(1).min(self.levels.len() - 1);
        &mut self.levels[at]
    }

    /// What a row needs at least, on whatever is free when nothing else is to be done.
    fn least(&self, rows: usize) -> Duration {
        let narrow = self.profiles.narrow.expected(rows);
        self.wide(rows).map_or(narrow, |wide| wide.min(narrow))
    }

    /// What the wide lane needs, if there is one.
    fn wide(&self, rows: usize) -> Option<Duration> {
        let wide = self.profiles.wide.as_ref().filter(|_| self.limits.wide)?;
        Some(wide.expected(rows))
    }

    fn probe_is_due(&self, now: Duration) -> bool {
        self.lanes.is_idle() && now.saturating_sub(self.last_activity) >= PROBE_AFTER
    }

    /// Takes requests out that need not be run any more, the queue through.
    fn sweep(&mut self, now: Duration) {
        self.swept_at = now;
        for (entry, reason) in self.queue.extract(|entry| entry.over(now)) {
            self.forget(entry, reason);
        }
    }

    /// Notes that a request was taken out of the queue for this reason.
    fn forget(&mut self, entry: Entry<J>, reason: DropReason) {
        let since = entry.arrived;
        let level = self.level(entry.level);
        level.queued = level.queued.saturating_sub(1);
        if matches!(reason, DropReason::Crowded { .. } | DropReason::Expired) {
            level.starving_since.get_or_insert(since);
        }
        self.dropped.push(Dropped { job: entry.job, reason });
    }
}

impl<J: Job> Entry<J> {
    /// Why it need not be run any more, if so.
    fn over(&self, now: Duration) -> Option<DropReason> {
        if self.promised {
            return self.job.is_abandoned().then_some(DropReason::Abandoned);
        }
        let waited_too_long = (now > self.start_by).then_some(DropReason::Expired);
        over(&self.job, now).or(waited_too_long)
    }
}

impl Plan {
    fn new(limits: &PolicyLimits, profiles: &Profiles) -> Self {
        let single = profiles.narrow.q99(1);
        let objective = limits.slo.map(|slo| if 2 * single > slo { 2 * single } else { slo });
        let batch = match limits.preferred_batch_sizes.iter().max() {
            Some(&largest) => largest.clamp(1, limits.max_batch_size),
            None if limits.max_queue_delay > Duration::ZERO => limits.max_batch_size,
            None => profiles.narrow.preferred_batch_size(limits.max_batch_size, objective),
        };
        Self { batch, objective, factor: profiles.narrow.factor() }
    }
}

/// Why a request need not be run any more, if so.
///
/// Expired comes first: whoever waits for an answer leaves when the deadline passes, and was not impatient.
pub fn over<J: Job>(job: &J, now: Duration) -> Option<DropReason> {
    if job.deadline().is_some_and(|deadline| deadline <= now) {
        Some(DropReason::Expired)
    } else if job.is_abandoned() {
        Some(DropReason::Abandoned)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
