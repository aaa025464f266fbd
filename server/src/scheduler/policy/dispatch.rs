//! What runs now? The most urgent requests that fit together, if the batch is in time for each of them.

use std::time::Duration;

use super::outcome::{CloseReason, ClosedBatch, Dispatch, DropReason, Lane};
use super::queue::Position;
use super::{BatchPolicy, CALM_AFTER, GUARD, Job};

/// The batch that would run now; its members are in [`BatchPolicy::members`].
struct Window {
    rows: usize,
    /// It holds as many rows as it may, or the next request does not fit.
    full: bool,
    /// When the first of its members arrived.
    oldest: Duration,
    /// The earliest deadline among those that have not been promised to be run.
    deadline: Duration,
}

impl<J: Job> BatchPolicy<J> {
    /// Decides what a free instance runs.
    pub fn dispatch(&mut self, now: Duration) -> Dispatch<J> {
        let (batch, wake_at) = if self.lanes.has_room() { self.next_batch(now) } else { (None, None) };
        Dispatch { dropped: std::mem::take(&mut self.dropped), batch, wake_at }
    }

    fn next_batch(&mut self, now: Duration) -> (Option<ClosedBatch<J>>, Option<Duration>) {
        loop {
            self.drop_dead_heads(now);
            let Some(head_rows) = self.queue.front().map(|head| head.rows) else { return (None, None) };
            let window = self.window(now);
            let closed = match self.waits_until(now, &window) {
                Ok(wake_at) => return (None, Some(wake_at)),
                Err(closed) => closed,
            };
            let lone = self.queue.len() == 1;
            // While not much arrives, as after a stall, or when nobody is left behind, whoever is dropped makes room
            // for nobody: then the mean will do.
            let calm = self.queue.rows() == window.rows || now >= self.crowded_at.saturating_add(CALM_AFTER);
            let in_time = |duration: Duration| now.saturating_add(duration) <= window.deadline;
            let idle = self.lanes.is_idle();
            let mut lane = Lane::Narrow;
            if lone && idle {
                lane = self.lane_for_lone(now, window.rows);
            }
            let on = |lane| self.profiles.of(lane).expected(window.rows);
            if lane == Lane::Wide && !in_time(on(lane)) && in_time(on(Lane::Narrow)) {
                lane = Lane::Narrow;
            }
            let expected = on(lane);
            if in_time(self.profiles.of(lane).q99(window.rows) + GUARD) || (calm && in_time(expected)) {
                return (Some(self.close(lane, window.rows, closed, now)), None);
            }
            // The whole machine may make for one request what an instance does not.
            let rescue =
                lane == Lane::Narrow && self.wide(head_rows).is_some_and(|wide| idle && in_time(wide));
            if rescue || self.probe_is_due(now) {
                self.members.truncate(1);
                let lane = if rescue { Lane::Wide } else { lane };
                return (Some(self.close(lane, head_rows, closed, now)), None);
            }
            self.drop_first_late(now, &window);
        }
    }

    /// Hands out at once whoever is at the head and need not be run any more.
    fn drop_dead_heads(&mut self, now: Duration) {
        while let Some(reason) = self.queue.front().and_then(|head| head.over(now)) {
            if let Some(entry) = self.queue.pop_front() {
                self.forget(entry, reason);
            }
        }
    }

    /// Finds the batch that would run now.
    fn window(&mut self, now: Duration) -> Window {
        let configured = !self.limits.preferred_batch_sizes.is_empty();
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        let mut window = Window { rows: 0, full: false, oldest: Duration::MAX, deadline: Duration::MAX };
        // The last preferred size that was met: members and window of then.
        let mut preferred = None;
        let head = self.queue.front();
        // A caller's own batch of more rows than are preferred runs whole.
        let room = if configured { self.limits.max_batch_size } else { self.plan.batch };
        let room = room.max(head.map_or(0, |head| head.rows));
        for (position, entry) in self.queue.iter() {
            if window.rows >= room {
                break;
            }
            let fits = head.is_some_and(|head| members.is_empty() || head.job.batches_with(&entry.job));
            if !fits || entry.over(now).is_some() {
                // In order means: whoever comes next is the next to run.
                if !fits && self.limits.preserve_ordering {
                    window.full = true;
                    break;
                }
                continue;
            }
            // Nobody smaller overtakes: it would be the larger request's turn for ever.
            if window.rows + entry.rows > room {
                window.full = true;
                break;
            }
            members.push(position);
            window.rows += entry.rows;
            window.oldest = window.oldest.min(entry.arrived);
            if !entry.promised {
                window.deadline = window.deadline.min(entry.deadline);
            }
            if self.limits.preferred_batch_sizes.contains(&window.rows) {
                preferred = Some((members.len(), Window { full: true, ..window }));
            }
        }
        window.full |= window.rows >= room;
        let overdue = now.saturating_sub(window.oldest) >= self.limits.max_queue_delay;
        // As Triton does: the largest preferred size that is there, unless somebody has waited too long.
        if let Some((count, smaller)) = preferred
            && (!overdue || self.limits.max_queue_delay == Duration::ZERO)
        {
            members.truncate(count);
            window = smaller;
        }
        self.members = members;
        window
    }

    /// Until when to wait for a fuller batch, or why not to.
    fn waits_until(&self, now: Duration, window: &Window) -> Result<Duration, CloseReason> {
        if window.full {
            return Err(CloseReason::Full);
        }
        if self.draining {
            return Err(CloseReason::Drain);
        }
        let delay = self.limits.max_queue_delay;
        if delay == Duration::ZERO {
            return Err(CloseReason::Queue);
        }
        let patience = window.oldest.saturating_add(delay);
        let needs = self.profiles.narrow.q99(self.plan.batch.max(window.rows)) + GUARD;
        let latest = window.deadline.saturating_sub(needs);
        if now >= patience {
            Err(CloseReason::Delay)
        } else if now >= latest {
            Err(CloseReason::Deadline)
        } else {
            Ok(patience.min(latest))
        }
    }

    /// Drops the member of the window with the earliest deadline, for which its batch would be too late.
    fn drop_first_late(&mut self, now: Duration, window: &Window) {
        let late = |position: &Position| {
            self.queue.at(*position).is_some_and(|entry| !entry.promised && entry.deadline == window.deadline)
        };
        let position = self.members.iter().copied().find(|position| late(position));
        let Some(entry) = position.and_then(|position| self.queue.remove(position)) else {
            unreachable!("the window's deadline is that of a member that has not been promised to be run");
        };
        let reason = if self.queue.len() == 0 && self.lanes.is_idle() {
            DropReason::Hopeless { needs: self.least(entry.rows) }
        } else {
            let batch = self.profiles.narrow.expected(self.plan.batch);
            let retry_after =
                self.lanes.forecast(now).start_of(self.queue.rows() / self.plan.batch + 1, batch);
            DropReason::Crowded { retry_after: retry_after.saturating_sub(now) }
        };
        self.forget(entry, reason);
    }

    /// Takes the members out of the queue, to be run.
    fn close(&mut self, lane: Lane, rows: usize, closed: CloseReason, now: Duration) -> ClosedBatch<J> {
        let mut jobs = Vec::with_capacity(self.members.len());
        for at in (0..self.members.len()).rev() {
            let Some(entry) = self.queue.remove(self.members[at]) else { continue };
            let level = self.level(entry.level);
            level.queued = level.queued.saturating_sub(1);
            level.starving_since = None;
            jobs.push(entry.job);
        }
        jobs.reverse();
        let expected = self.profiles.of(lane).expected(rows);
        let id = self.lanes.start(lane, rows, now, expected);
        self.last_activity = now;
        ClosedBatch { id, lane, jobs, rows, closed, expected }
    }
}
