//! Which requests run next, and which are not worth running any more: a pure state machine that is handed `now`.
//!
//! **Architecture invariant:** no clock, no threads, no tokio, no tonic, no ort. Time is a [`Duration`] since any fixed
//! instant, so that tests and simulations invent it.
//!
//! * Earliest deadline first; in order of arrival among equals.
//! * Never wait for a fuller batch: what is queued when an instance is free, runs. Load fills batches by itself.
//! * Window drop: at dispatch, the head is dropped until the batch that will *really* run (all that is queued, up to
//!   the preferred size) makes the head's deadline. Looking instead for the largest batch that the head still makes
//!   lets batches shrink to one just when they must be full.
//! * Plans are made with the 99 % quantile of the [`LatencyProfile`], not with its mean.

use std::collections::VecDeque;
use std::time::Duration;

use super::observer::CloseReason;
use super::profile::LatencyProfile;

/// Time kept free for what surrounds a batch: writing it, splitting it, waking the callers.
const GUARD: Duration = Duration::from_micros(500);
/// After so long without a run, one request is run whatever the profile predicts: a profile that a stall has made
/// too pessimistic would otherwise refuse everything, and never be corrected.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// What the policy wants to know of a request.
pub trait Job {
    /// Rows it adds to a batch, at least 1.
    fn rows(&self) -> usize;
    /// When its answer is worth nothing any more.
    fn deadline(&self) -> Option<Duration>;
    /// Whether its caller has gone.
    fn is_abandoned(&self) -> bool;
    /// Whether both can be rows of one batch.
    fn batches_with(&self, other: &Self) -> bool;
}

/// Limits of a [`BatchPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Rows of a batch at most.
    pub max_batch_size: usize,
    /// Requests that may wait.
    pub queue_size: usize,
    /// Instances that run batches side by side.
    pub instances: usize,
}

/// Why a request was taken out of the queue without being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its caller has gone.
    Abandoned,
    /// Its deadline has passed.
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

/// Requests to run together.
#[derive(Debug, PartialEq, Eq)]
pub struct ClosedBatch<J> {
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
}

/// A request that found the queue full.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<J> {
    /// The request.
    pub job: J,
    /// When there is likely to be room.
    pub retry_after: Duration,
}

/// The queue of one model version, and the decisions about it.
#[derive(Debug)]
pub struct BatchPolicy<J> {
    limits: PolicyLimits,
    preferred: usize,
    profile: LatencyProfile,
    /// By deadline, then by arrival. Requests without a deadline come last.
    queue: VecDeque<J>,
    running: usize,
    last_activity: Duration,
    draining: bool,
}

impl<J: Job> BatchPolicy<J> {
    /// An empty queue for a device with this profile.
    pub fn new(limits: PolicyLimits, profile: LatencyProfile) -> Self {
        let preferred = profile.preferred_batch_size(limits.max_batch_size);
        Self {
            limits,
            preferred,
            profile,
            queue: VecDeque::new(),
            running: 0,
            last_activity: Duration::ZERO,
            draining: false,
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// A full queue is an answer, not a wait.
    pub fn submit(&mut self, job: J) -> Result<(), Refused<J>> {
        if self.queue.len() >= self.limits.queue_size {
            return Err(Refused { job, retry_after: self.backlog() });
        }
        let deadline = job.deadline().unwrap_or(Duration::MAX);
        let at = self.queue.partition_point(|other| other.deadline().unwrap_or(Duration::MAX) <= deadline);
        self.queue.insert(at, job);
        Ok(())
    }

    /// Takes out whoever need not be run: to make room in a full queue before anyone is refused.
    pub fn sweep(&mut self, now: Duration) -> Vec<Dropped<J>> {
        let mut dropped = Vec::new();
        let mut kept = VecDeque::with_capacity(self.queue.len());
        for job in self.queue.drain(..) {
            match over(&job, now) {
                Some(reason) => dropped.push(Dropped { job, reason }),
                None => kept.push_back(job),
            }
        }
        self.queue = kept;
        dropped
    }

    /// Decides what a free instance runs.
    pub fn dispatch(&mut self, now: Duration) -> Dispatch<J> {
        let mut dropped = Vec::new();
        while let Some(head) = self.queue.front() {
            if let Some(reason) = over(head, now) {
                dropped.extend(self.queue.pop_front().map(|job| Dropped { job, reason }));
                continue;
            }
            let (deadline, head_rows) = (head.deadline(), head.rows());
            let (members, rows, full) = self.members(now);
            let lone = self.queue.len() == 1;
            let in_time = |duration: Duration| deadline.is_none_or(|deadline| now + duration <= deadline);
            if in_time(self.profile.q99(rows) + GUARD) || (lone && in_time(self.profile.expected(rows))) {
                return Dispatch { dropped, batch: Some(self.close(&members, rows, full, now)) };
            }
            if self.running == 0 && now.saturating_sub(self.last_activity) >= PROBE_AFTER {
                return Dispatch { dropped, batch: Some(self.close(&[0], head_rows, full, now)) };
            }
            let reason = if lone && self.running == 0 {
                DropReason::Hopeless { needs: self.profile.expected(rows) }
            } else {
                DropReason::Crowded { retry_after: self.backlog() }
            };
            dropped.extend(self.queue.pop_front().map(|job| Dropped { job, reason }));
        }
        Dispatch { dropped, batch: None }
    }

    /// Takes in that a batch of `rows` rows has ended; `duration` is `None` when it failed.
    pub fn completed(&mut self, now: Duration, rows: usize, duration: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        self.last_activity = now;
        if let Some(duration) = duration {
            self.profile.observe(rows, duration);
        }
    }

    /// From now on batches are closed because the server is stopping.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes out every request, for when nothing can run them.
    pub fn take_all(&mut self) -> Vec<J> {
        self.queue.drain(..).collect()
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another request would be refused.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.queue_size
    }

    /// Rows that are worth running at once on this device.
    pub fn preferred_batch_size(&self) -> usize {
        self.preferred
    }

    /// What is known about this device.
    pub fn profile(&self) -> &LatencyProfile {
        &self.profile
    }

    /// Time until what is queued now has run, by the mean.
    fn backlog(&self) -> Duration {
        let rows: usize = self.queue.iter().map(Job::rows).sum();
        let batches = rows.div_ceil(self.preferred).div_ceil(self.limits.instances.max(1)).max(1);
        self.profile.expected(self.preferred) * u32::try_from(batches).unwrap_or(u32::MAX)
    }

    /// Positions in the queue of the batch that would run now, its rows, and whether it has no more room.
    fn members(&self, now: Duration) -> (Vec<usize>, usize, bool) {
        let Some(head) = self.queue.front() else { return (Vec::new(), 0, false) };
        // A caller's own batch of more rows than are preferred runs whole.
        let room = self.preferred.max(head.rows());
        let (mut members, mut rows) = (vec![0], head.rows());
        for (at, job) in self.queue.iter().enumerate().skip(1) {
            if rows >= room {
                break;
            }
            if !head.batches_with(job) || over(job, now).is_some() {
                continue;
            }
            // Nobody smaller overtakes: it would be the larger request's turn for ever.
            if rows + job.rows() > room {
                return (members, rows, true);
            }
            members.push(at);
            rows += job.rows();
        }
        (members, rows, rows >= room)
    }

    /// Takes the members out of the queue.
    fn close(&mut self, members: &[usize], rows: usize, full: bool, now: Duration) -> ClosedBatch<J> {
        let mut jobs: Vec<J> = members.iter().rev().filter_map(|&at| self.queue.remove(at)).collect();
        jobs.reverse();
        self.running += 1;
        self.last_activity = now;
        let closed = match (full, self.draining) {
            (true, _) => CloseReason::Full,
            (false, true) => CloseReason::Drain,
            (false, false) => CloseReason::Queue,
        };
        ClosedBatch { jobs, rows, closed, expected: self.profile.expected(rows) }
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
mod simulation;
#[cfg(test)]
mod tests;
