//! What runs now, and when the next batches can start.

use std::time::Duration;

use super::outcome::Lane;

/// Lanes whose ends are predicted one by one; with more, the rest is taken to be like these.
const PREDICTED: usize = 32;

/// A batch that runs.
#[derive(Clone, Copy, Debug)]
struct Run {
    lane: Lane,
    rows: usize,
    started: Duration,
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
    narrow: usize,
    running: Vec<Run>,
}

impl Lanes {
    pub(super) fn new(narrow: usize) -> Self {
        Self { narrow: narrow.max(1), running: Vec::with_capacity(narrow.max(1)) }
    }

    /// Whether nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether another batch can start now.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < self.narrow && self.running.iter().all(|run| run.lane == Lane::Narrow)
    }

    pub(super) fn start(&mut self, lane: Lane, rows: usize, now: Duration, expected: Duration) {
        self.running.push(Run { lane, rows, started: now, expected });
    }

    /// Frees the lane of such a batch, and gives when it started.
    pub(super) fn end(&mut self, lane: Lane, rows: usize) -> Option<Duration> {
        let at = self.running.iter().position(|run| run.lane == lane && run.rows == rows)?;
        Some(self.running.swap_remove(at).started)
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
            free_at[..lanes].sort_unstable();
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
        lanes.start(Lane::Narrow, 1, ms(0), ms(10));
        let forecast = lanes.forecast(ms(4));
        let starts = [0, 1, 2, 3].map(|before| forecast.start_of(before, ms(10)));
        assert_eq!(starts, [ms(4), ms(10), ms(14), ms(20)]);
        lanes.start(Lane::Narrow, 3, ms(4), ms(10));
        assert!(!lanes.has_room());
        assert_eq!(lanes.end(Lane::Narrow, 1), Some(ms(0)));
        assert_eq!(lanes.forecast(ms(5)).start_of(1, ms(10)), ms(14));
    }

    #[test]
    fn the_wide_lane_keeps_the_others_waiting() {
        let mut lanes = Lanes::new(2);
        lanes.start(Lane::Wide, 1, ms(0), ms(8));
        assert!(!lanes.has_room() && !lanes.is_idle());
        assert_eq!(lanes.forecast(ms(1)).start_of(1, ms(10)), ms(8));
        assert_eq!(lanes.forecast(ms(10)).start_of(0, ms(10)), ms(10), "overdue");
        lanes.end(Lane::Wide, 1);
        assert!(lanes.has_room() && lanes.is_idle());
    }
}
