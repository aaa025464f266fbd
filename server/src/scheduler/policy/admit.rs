//! Is a request taken? Whoever would be too late, or would make another one too late, is told so when it arrives.

use std::time::Duration;

use super::lanes::Forecast;
use super::outcome::{Refusal, Refused};
use super::queue::Entry;
use super::{
    BatchPolicy, GUARD, Job, KEPT_FREE, LONGEST_QUEUE, MOST_KEPT_FREE, PRIORITY_STEP, STARVED_AFTER,
};

/// How far back arrivals count for their rate, about.
const RATE_WINDOW_S: f64 = 0.05;
/// How much of a batch's spread (from the mean to the quantile) counts as delay of those who wait behind it; that of
/// several batches adds up as their variances do. Without it, half of the requests at the end of a full queue would
/// be accepted and then dropped on a device with noise; with more, a few would be refused for nothing.
const DOUBT: f64 = 0.3;
/// Arrivals over what can be run from which on every row that runs takes the place of another.
const CROWDED: f64 = 0.9;
/// Before anyone is refused, the queue is searched for requests that nobody waits for: one of more than so many at
/// most every few milliseconds.
const SMALL_QUEUE: usize = 64;
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// How many rows arrive: a count that fades.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ArrivalRate {
    count: f64,
    at: Duration,
}

impl ArrivalRate {
    fn note(&mut self, now: Duration, rows: usize) {
        self.count = self.faded(now) + rows as f64;
        self.at = now;
    }

    fn faded(&self, now: Duration) -> f64 {
        self.count * (-now.saturating_sub(self.at).as_secs_f64() / RATE_WINDOW_S).exp()
    }

    /// Rows a second.
    fn rate(&self, now: Duration) -> f64 {
        self.faded(now) / RATE_WINDOW_S
    }
}

/// A request that asks to be taken.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    rows: usize,
    deadline: Duration,
    own_deadline: bool,
    level: u32,
    urgency: Duration,
    start_by: Duration,
}

/// The queue as it is now, for questions about who would end when.
struct Outlook {
    forecast: Forecast,
    now: Duration,
    /// Rows at the front that will be dropped when the next batch starts.
    doomed: usize,
    /// What a full batch takes.
    batch: Duration,
    /// What it takes at the quantile.
    full: Duration,
    /// Rows that arrive, a second.
    rate: f64,
}

impl<J: Job> BatchPolicy<J> {
    /// Queues a request.
    ///
    /// # Errors
    /// Whoever would not be answered in time is refused at once, and told when to try again.
    pub fn submit(&mut self, now: Duration, job: J) -> Result<(), Refused<J>> {
        let level = self.level_of(job.priority());
        let candidate = self.candidate(now, job.rows(), job.deadline(), job.has_own_deadline(), level);
        if let Some(reason) = self.refusal_after_search(now, |policy| policy.refusal(now, &candidate)) {
            self.level(level).starving_since.get_or_insert(now);
            self.note_refusal(reason);
            return Err(Refused { job, reason });
        }
        let Candidate { rows, deadline, own_deadline, urgency, start_by, .. } = candidate;
        self.note_arrival(now, rows);
        let promised = !own_deadline && self.finds_an_instance(now);
        let state = self.level(level);
        state.queued += 1;
        if state.starving_since.is_some_and(|since| now >= since + STARVED_AFTER) {
            state.starving_since = None;
        }
        self.queue.insert(Entry { urgency, deadline, start_by, arrived: now, rows, level, promised, job });
        Ok(())
    }

    /// Why a request of so many rows with this deadline of its caller's would be refused now, whatever its priority, if
    /// so: for when only its headers are known.
    pub fn would_refuse(&mut self, now: Duration, rows: usize, own: Option<Duration>) -> Option<Refusal> {
        let deadline = self.deadline(now, own);
        let reason = self.refusal_after_search(now, |policy| {
            let of_level = |level| {
                let candidate = policy.candidate(now, rows, deadline, own.is_some(), level);
                policy.refusal(now, &candidate)
            };
            let default = policy.level_of(0);
            let answer = of_level(default)?;
            let every_other = (1..).take(policy.levels.len()).filter(|&level| level != default);
            every_other.map(of_level).all(|refusal| refusal.is_some()).then_some(answer)
        })?;
        self.note_refusal(reason);
        Some(reason)
    }

    fn note_refusal(&mut self, reason: Refusal) {
        if matches!(reason, Refusal::Crowded { .. }) {
            self.trials.note_refusal();
        }
    }

    /// Before anyone is refused, the queue is searched for requests that nobody waits for.
    fn refusal_after_search(
        &mut self,
        now: Duration,
        refusal: impl Fn(&Self) -> Option<Refusal>,
    ) -> Option<Refusal> {
        let reason = refusal(self)?;
        let worth_a_search = self.queue.len() <= SMALL_QUEUE || now >= self.swept_at + SWEEP_INTERVAL;
        if self.queue.len() == 0 || !worth_a_search {
            return Some(reason);
        }
        self.sweep(now);
        refusal(self)
    }

    fn candidate(
        &self,
        now: Duration,
        rows: usize,
        deadline: Option<Duration>,
        own_deadline: bool,
        level: u32,
    ) -> Candidate {
        let (rows, due) = (rows.max(1), deadline.unwrap_or(Duration::MAX));
        // The order is that of the deadlines themselves.
        let aim = |due: Duration| due - self.kept_free(due.saturating_sub(now));
        let deadline = deadline.map_or(Duration::MAX, aim);
        let state = &self.levels[level as usize - 1];
        let starved = state.starving_since.is_some_and(|since| now >= since + STARVED_AFTER);
        let urgency = if self.limits.preserve_ordering {
            now
        } else {
            let behind = if starved { 0 } else { level - 1 };
            due.min(now + LONGEST_QUEUE) + PRIORITY_STEP * behind
        };
        let start_by = state.policy.timeout.map_or(Duration::MAX, |timeout| now.saturating_add(timeout));
        Candidate { rows, deadline, own_deadline, level, urgency, start_by }
    }

    /// How much of the time until a deadline is kept free for the answer's way.
    fn kept_free(&self, time: Duration) -> Duration {
        self.way.clamp(time / KEPT_FREE, time / MOST_KEPT_FREE)
    }

    /// Whether a request would be run at once.
    fn finds_an_instance(&self, _now: Duration) -> bool {
        self.queue.len() == 0 && self.lanes.has_room()
    }

    fn refusal(&self, now: Duration, candidate: &Candidate) -> Option<Refusal> {
        let &Candidate { rows, deadline, own_deadline, level, urgency, start_by } = candidate;
        let needs = self.least(rows);
        if self.finds_an_instance(now) {
            let quickest = if self.lanes.is_idle() { needs } else { self.profiles.narrow.expected(rows) };
            if !own_deadline || now + quickest <= deadline || self.probe_is_due(now) {
                return None;
            }
        }
        if now + needs > deadline && !self.probe_is_due(now) {
            return Some(Refusal::Hopeless { needs });
        }
        let outlook = self.outlook(now);
        let state = &self.levels[level as usize - 1];
        if state.policy.max_queue_size.is_some_and(|size| state.queued >= size) {
            let retry_after = outlook.forecast.start_of(1, outlook.batch).saturating_sub(now);
            return Some(Refusal::QueueFull { retry_after: retry_after.max(needs) });
        }
        let until = (self.queue.rows_before(urgency) + rows).saturating_sub(outlook.doomed).max(rows);
        let (starts, ends) = self.outcome_of(&outlook, until, rows);
        let limit = deadline.min(now + LONGEST_QUEUE);
        if ends > limit || starts > start_by {
            let late = ends.saturating_sub(limit).max(starts.saturating_sub(start_by));
            return Some(Refusal::Crowded { retry_after: late.max(needs) });
        }
        let ends_by =
            |until: usize| self.outcome_of(&outlook, until.saturating_sub(outlook.doomed).max(1), 1).1;
        let pushes = self.queue.any_behind(
            urgency,
            |deadline, until| ends_by(until + rows) > deadline,
            |entry, until| {
                // A lower priority does not keep a higher one out.
                entry.level <= level
                    && ends_by(until + rows) > entry.deadline
                    && ends_by(until) <= entry.deadline
            },
        );
        pushes.then_some(Refusal::Crowded { retry_after: outlook.batch })
    }

    /// Takes in that rows have arrived, and whether there are about as many as can be run.
    fn note_arrival(&mut self, now: Duration, rows: usize) {
        self.arrivals.note(now, rows);
        let full = self.plan.batch;
        let batches = self.lanes.working() as f64 / self.profiles.narrow.expected(full).as_secs_f64();
        if self.arrivals.rate(now) >= CROWDED * full as f64 * batches {
            self.crowded_at = now;
        }
    }

    fn outlook(&self, now: Duration) -> Outlook {
        let forecast = self.lanes.forecast(now);
        let batch = self.profiles.narrow.expected(self.plan.batch);
        let next = forecast.start_of(0, batch);
        let window = self.profiles.narrow.q99(self.queue.rows().clamp(1, self.plan.batch));
        let doomed = self.queue.rows_due_before(next + window + GUARD);
        let full = self.profiles.narrow.q99(self.plan.batch);
        Outlook { forecast, now, doomed, batch, full, rate: self.arrivals.rate(now) }
    }

    /// When the batch starts and when it ends, at the quantile, that holds the last of `until` queued rows, which
    /// belongs to a request of `rows` rows.
    fn outcome_of(&self, outlook: &Outlook, until: usize, rows: usize) -> (Duration, Duration) {
        let full = self.plan.batch;
        let before = (until - 1) / full;
        let starts = outlook.forecast.start_of(before, outlook.batch);
        let wait = starts.saturating_sub(outlook.now);
        let batches = wait.as_secs_f64() / outlook.batch.as_secs_f64();
        let doubt = outlook.full.saturating_sub(outlook.batch).mul_f64(batches.sqrt() * DOUBT);
        let starts = starts + doubt;
        let joining = (outlook.rate * wait.as_secs_f64()) as usize;
        let size = (until - before * full).saturating_add(joining).min(full).max(rows);
        let takes = if size == full { outlook.full } else { self.profiles.narrow.q99(size) };
        (starts, starts + takes + GUARD)
    }
}
