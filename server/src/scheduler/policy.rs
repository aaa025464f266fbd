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

mod limits;
mod outcome;

use std::collections::VecDeque;
use std::time::Duration;

use super::profile::Profiles;

pub use limits::{PolicyLimits, QueuePolicy};
pub use outcome::{CloseReason, ClosedBatch, Dispatch, DropReason, Dropped, Lane, Refusal, Refused};

/// Time kept free for what surrounds a batch: writing it, splitting it, waking the callers.
const GUARD: Duration = Duration::from_micros(500);
/// After so long without a run, one request is run whatever the profile predicts: a profile that a stall has made
/// too pessimistic would otherwise refuse everything, and never be corrected.
const PROBE_AFTER: Duration = Duration::from_secs(1);

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

/// The queue of one model version, and the decisions about it.
#[derive(Debug)]
pub struct BatchPolicy<J> {
    limits: PolicyLimits,
    preferred: usize,
    profiles: Profiles,
    /// By deadline, then by arrival. Requests without a deadline come last.
    queue: VecDeque<J>,
    running: usize,
    last_activity: Duration,
    draining: bool,
}

impl<J: Job> BatchPolicy<J> {
    /// An empty queue for a device with these profiles.
    pub fn new(limits: PolicyLimits, profiles: Profiles) -> Self {
        let preferred = profiles.narrow.preferred_batch_size(limits.max_batch_size);
        Self {
            limits,
            preferred,
            profiles,
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
    pub fn submit(&mut self, now: Duration, job: J) -> Result<(), Refused<J>> {
        if let Some(reason) = self.would_refuse(now, job.rows(), job.deadline()) {
            return Err(Refused { job, reason });
        }
        let deadline = job.deadline().unwrap_or(Duration::MAX);
        let at = self.queue.partition_point(|other| other.deadline().unwrap_or(Duration::MAX) <= deadline);
        self.queue.insert(at, job);
        Ok(())
    }

    /// Whether a request of so many rows with this deadline of its caller's would be refused now, and why: for when
    /// only its headers are known.
    pub fn would_refuse(&self, _now: Duration, _rows: usize, _deadline: Option<Duration>) -> Option<Refusal> {
        let retry_after = self.backlog();
        self.is_full().then_some(Refusal::QueueFull { retry_after })
    }

    /// The latency objective that requests are held to: the configured one, or twice what a single row needs when
    /// that is more.
    pub fn objective(&self) -> Option<Duration> {
        self.limits.slo
    }

    /// When the answer to a request that arrives `now` is worth nothing any more: `own` is its caller's deadline.
    pub fn deadline(&self, now: Duration, own: Option<Duration>) -> Option<Duration> {
        let objective = self.objective().map(|objective| now + objective);
        own.into_iter().chain(objective).min()
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
            if in_time(self.profiles.narrow.q99(rows) + GUARD)
                || (lone && in_time(self.profiles.narrow.expected(rows)))
            {
                return Dispatch {
                    dropped,
                    batch: Some(self.close(&members, rows, full, now)),
                    wake_at: None,
                };
            }
            if self.running == 0 && now.saturating_sub(self.last_activity) >= PROBE_AFTER {
                return Dispatch {
                    dropped,
                    batch: Some(self.close(&[0], head_rows, full, now)),
                    wake_at: None,
                };
            }
            let reason = if lone && self.running == 0 {
                DropReason::Hopeless { needs: self.profiles.narrow.expected(rows) }
            } else {
                DropReason::Crowded { retry_after: self.backlog() }
            };
            dropped.extend(self.queue.pop_front().map(|job| Dropped { job, reason }));
        }
        Dispatch { dropped, batch: None, wake_at: None }
    }

    /// Takes in that a batch of `rows` rows has ended; `duration` is `None` when it failed.
    pub fn completed(&mut self, now: Duration, lane: Lane, rows: usize, duration: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        self.last_activity = now;
        if let Some(duration) = duration {
            self.profiles.of_mut(lane).observe(rows, duration);
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
        self.limits.default_queue_policy.max_queue_size.is_some_and(|size| self.queue.len() >= size)
    }

    /// Rows that are worth running at once on this device.
    pub fn preferred_batch_size(&self) -> usize {
        self.preferred
    }

    /// What is known about this device.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Time until what is queued now has run, by the mean.
    fn backlog(&self) -> Duration {
        let rows: usize = self.queue.iter().map(Job::rows).sum();
        let batches = rows.div_ceil(self.preferred).div_ceil(self.limits.lanes.max(1)).max(1);
        self.profiles.narrow.expected(self.preferred) * u32::try_from(batches).unwrap_or(u32::MAX)
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
        ClosedBatch { lane: Lane::Narrow, jobs, rows, closed, expected: self.profiles.narrow.expected(rows) }
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
