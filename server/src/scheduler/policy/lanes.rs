//! What runs now, and when the next batches can start.

use std::time::Duration;

use super::outcome::{Lane, RunId};

/// Lanes whose ends are predicted one by one; with more, the rest is taken to be like these.
const PREDICTED: usize = 32;

/// A batch that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    id: RunId,
    pub(super) lane: Lane,
    pub(super) rows: usize,
    pub(super) started: Duration,
    expected: Duration,
}

impl Run {
    /// When it is likely to end. One that is overdue may end at any moment: who comes during a stall may well be in
    /// time when it is over, and is dropped then if not.
    fn ends(&self, now: Duration) -> Duration {
        let due = self.started + self.expected;
        due.max(now)
    }
}

/// The batches that run.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Narrow lanes that work.
    narrow: usize,
    running: Vec<Run>,
    /// Batches started so far.
    started: u64,
}

impl Lanes {
    pub(super) fn new(narrow: usize) -> Self {
        Self { narrow: narrow.max(1), running: Vec::with_capacity(narrow.max(1)), started: 0 }
    }

    /// Narrow lanes that work.
    pub(super) fn working(&self) -> usize {
        self.narrow
    }

    /// From now on so many do. At least one is counted: what is queued waits for it.
    pub(super) fn set_working(&mut self, narrow: usize) {
        self.narrow = narrow.max(1);
    }

    /// Whether nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether another batch can start now.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < self.narrow && self.running.iter().all(|run| run.lane == Lane::Narrow)
    }

    pub(super) fn start(&mut self, lane: Lane, rows: usize, now: Duration, expected: Duration) -> RunId {
        let id = RunId(self.started);
        self.started += 1;
        self.running.push(Run { id, lane, rows, started: now, expected });
        id
    }

    /// Frees the lane of a batch, and gives what ran there.
    pub(super) fn end(&mut self, id: RunId) -> Option<Run> {
        let at = self.running.iter().position(|run| run.id == id)?;
        Some(self.running.remove(at))
    }

    /// The batch of so many rows on such a lane that was started first.
    #[cfg(test)]
    pub(super) fn find(&self, lane: Lane, rows: usize) -> Option<RunId> {
        self.running.iter().find(|run| run.lane == lane && run.rows == rows).map(|run| run.id)
    }

    /// When the next batches can start.
    pub(super) fn forecast(&self, now: Duration) -> Forecast {
        let mut free_at = [now; PREDICTED];
        let lanes = self.narrow.min(PREDICTED);
        let wide = self.running.iter().filter(|run| run.lane == Lane::Wide).map(|run| run.ends(now)).max();
        if let Some(ends) = wide {
            free_at[..lanes].fill(ends);
        } else {
            for (at, run) in free_at.iter_mut().zip(&self.running) {
                *at = run.ends(now);
            }
            // More than there are lanes that work: one has broken, and its batch has not ended yet.
            let busy = self.running.len().clamp(lanes, PREDICTED);
            free_at[..busy].sort_unstable();
            free_at.copy_within(busy - lanes..busy, 0);
        }
        Forecast { free_at, lanes }
    }
}

/// When each lane is free, the earliest first.
#[derive(Debug)]
pub(super) struct Forecast {
    free_at: [Duration; PREDICTED],
    lanes: usize,
}

impl Forecast {
    /// When the batch starts that has `before` others before it, each of which takes `duration`.
    pub(super) fn start_of(&self, before: usize, duration: Duration) -> Duration {
        let rounds = u32::try_from(before / self.lanes).unwrap_or(u32::MAX);
        self.free_at[before % self.lanes].saturating_add(duration.saturating_mul(rounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn batches_start_where_a_lane_is_free_first() {
        let mut lanes = Lanes::new(2);
        assert_eq!(lanes.forecast(ms(5)).start_of(2, ms(10)), ms(15));
        let first = lanes.start(Lane::Narrow, 1, ms(0), ms(10));
        let forecast = lanes.forecast(ms(4));
        let starts = [0, 1, 2, 3].map(|before| forecast.start_of(before, ms(10)));
        assert_eq!(starts, [ms(4), ms(10), ms(14), ms(20)]);
        let second = lanes.start(Lane::Narrow, 1, ms(4), ms(10));
        assert!(!lanes.has_room());
        assert_eq!(lanes.end(first).map(|run| run.started), Some(ms(0)));
        assert!(lanes.end(first).is_none(), "it has ended already");
        assert_eq!(lanes.forecast(ms(5)).start_of(1, ms(10)), ms(14));
        assert_eq!(lanes.end(second).map(|run| (run.started, run.rows)), Some((ms(4), 1)));
        assert!(lanes.is_idle());
    }

    #[test]
    fn a_broken_lane_is_not_counted() {
        let mut lanes = Lanes::new(2);
        let runs = [0, 5].map(|at| lanes.start(Lane::Narrow, 1, ms(at), ms(10)));
        lanes.set_working(1);
        assert!(!lanes.has_room());
        assert_eq!(lanes.forecast(ms(6)).start_of(0, ms(10)), ms(15));
        lanes.end(runs[0]);
        assert!(!lanes.has_room());
        assert_eq!([0, 1].map(|before| lanes.forecast(ms(11)).start_of(before, ms(10))), [ms(15), ms(25)]);
        lanes.set_working(2);
        assert!(lanes.has_room());
        lanes.set_working(0);
        assert_eq!(lanes.working(), 1);
    }

    #[test]
    fn the_wide_lane_keeps_the_others_waiting() {
        let mut lanes = Lanes::new(2);
        let run = lanes.start(Lane::Wide, 1, ms(0), ms(8));
        assert!(!lanes.has_room() && !lanes.is_idle());
        assert_eq!(lanes.forecast(ms(1)).start_of(1, ms(10)), ms(8));
        assert_eq!(lanes.forecast(ms(10)).start_of(0, ms(10)), ms(10), "overdue");
        lanes.end(run);
        assert!(lanes.has_room() && lanes.is_idle());
    }
}
