//! Which lane a lone request gets when what was measured at load may be wrong.
//!
//! A machine that was busy while a shape was measured makes it look slow, and a lane that is never used is never
//! corrected. So where there is reason for doubt, the lane that is not preferred is tried from time to time, by a request
//! that finds everything idle and that makes its deadline all the same:
//!
//! - the wide lane, where it was measured to be no quicker;
//! - a narrow one, where the wide lane is preferred against what was measured, or where the narrow lanes' durations raise
//!   the objective although none of them runs;
//! - a narrow one, where the wide lane has run one lone request after the other and whoever came meanwhile was refused,
//!   because narrow lanes were slow when they last ran. What they did then counts half with each time that one is due.
//!
//! The first trial comes soon, and each doubles the distance to the next: what is lost by lanes that really are slower
//! goes towards one request in [`RAREST`].

use std::time::Duration;

use super::outcome::Lane;
use super::{BatchPolicy, GUARD, Job};

/// Lone requests until the first trial.
const FIRST: u32 = 4;
/// Lone requests between two trials at most.
const RAREST: u32 = 256;
/// A trial is expected to take so many times as long as the preferred lane at most.
const LOSS: u32 = 4;
/// Lone requests on the wide lane, with others refused and no batch on a narrow one, from which there is doubt about those.
const SHUT_OUT: u32 = 16;
/// How much quicker than measured in comparison the wide lane must have become to be preferred.
const QUICKER: f64 = 0.95;

/// When the lane that is not preferred is tried next.
#[derive(Debug)]
pub(super) struct Trials {
    distance: u32,
    left: u32,
    /// Whether somebody was refused since a narrow lane last ran, and lone requests that the wide lane has run since then.
    refused: bool,
    passed: u32,
}

impl Default for Trials {
    fn default() -> Self {
        Self { distance: FIRST, left: FIRST, refused: false, passed: 0 }
    }
}

impl Trials {
    /// Takes in that somebody was refused who could have waited for a narrow lane.
    pub(super) fn note_refusal(&mut self) {
        self.refused = true;
    }

    /// Takes in that a narrow lane was used.
    pub(super) fn note_narrow(&mut self) {
        (self.refused, self.passed) = (false, 0);
    }

    /// Takes in that a lone request is for the wide lane.
    fn note_wide(&mut self) {
        if self.refused {
            self.passed = self.passed.saturating_add(1);
        }
    }

    /// Whether narrow lanes may be slow in memory only, and are not used for that.
    fn are_shut_out(&self) -> bool {
        self.passed >= SHUT_OUT
    }

    /// Counts a lone request; gives whether it is the one to try.
    fn is_due(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.distance = (self.distance * 2).min(RAREST);
        self.left = self.distance;
        true
    }
}

impl<J: Job> BatchPolicy<J> {
    /// The lane for a request of so many rows that is alone in the queue and finds every lane idle.
    pub(super) fn lane_for_lone(&mut self, now: Duration, rows: usize) -> Lane {
        let Some(wide) = self.profiles.wide.as_ref().filter(|_| self.limits.wide) else {
            return Lane::Narrow;
        };
        let narrow = &self.profiles.narrow;
        // What was measured counts more than what was seen last: a lane that was slow once is used again, and corrected.
        let measured = wide.measured(rows) < narrow.measured(rows);
        let learned = wide.expected(rows) < narrow.expected(rows).mul_f64(QUICKER);
        let raised = self.plan.objective > self.limits.slo;
        let is_wide_preferred = measured || learned;
        let shut_out = is_wide_preferred && self.trials.are_shut_out();
        let (preferred, other, is_doubted) = match is_wide_preferred {
            true => (Lane::Wide, Lane::Narrow, !measured || raised || shut_out),
            false => (Lane::Narrow, Lane::Wide, true),
        };
        if is_wide_preferred {
            self.trials.note_wide();
        }
        if !is_doubted || !self.trials.is_due() {
            return preferred;
        }
        if shut_out {
            self.profiles.narrow.fade();
        }
        let on = |lane| self.profiles.of(lane).expected(rows);
        // Where the quantile is in doubt, the mean must do.
        let needs = if shut_out { on(other) } else { self.profiles.of(other).q99(rows) };
        // Its objective counts for a trial, also where it would be run in any case.
        let deadline = self.queue.front().and_then(|head| head.job.deadline()).unwrap_or(Duration::MAX);
        let in_time = now.saturating_add(needs + GUARD) <= deadline;
        let is_bounded = on(other) <= on(preferred) * LOSS || (raised && other == Lane::Narrow);
        if in_time && is_bounded { other } else { preferred }
    }
}
