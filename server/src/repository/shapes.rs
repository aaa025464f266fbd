//! Ways to share a machine's cores between a model's sessions, and which of them is best for what.
//!
//! The best way changes with the load: a lone request is answered soonest by one session with all cores, while many
//! sessions of few threads carry more, since no thread waits for another. So both are measured, and both are kept.

use std::fmt;
use std::iter::{once, successors};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scheduler::{LatencyProfile, Profiles};

/// Instances of a shape that is tried without being asked for: each holds the model's weights once more.
const MAX_INSTANCES: usize = 16;
/// Shapes of several instances that are tried at most.
const MAX_NARROW: usize = 3;
/// How much more a shape of more sessions must carry to be worth their memory.
const WORTH_THE_MEMORY: f64 = 1.02;
/// How much sooner a wide session must answer one row to be worth keeping the others from working.
const WORTH_THE_MACHINE: f64 = 0.95;

/// Sessions that work side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct InstanceShape {
    /// Sessions.
    pub(crate) instances: usize,
    /// Threads that work on one batch.
    pub(crate) threads: usize,
}

impl fmt::Display for InstanceShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let Self { instances, threads } = *self;
        write!(f, "{instances} session{} x {threads} thread{}", plural(instances), plural(threads))
    }
}

/// Ways to share `cores` that are worth measuring: all of them for one session, one for each, and some between.
/// Those most worth it come first. No more threads than cores are ever at work.
pub(crate) fn candidates(cores: usize) -> Vec<InstanceShape> {
    let cores = cores.max(1);
    let shape = |instances: usize| InstanceShape { instances, threads: cores / instances };
    let halves = successors(Some(cores.min(MAX_INSTANCES)), |instances| Some(instances / 2));
    let several = halves.take_while(|&instances| instances > 1).take(MAX_NARROW);
    once(1).chain(several).map(shape).collect()
}

/// Batches in flight on a GPU that are worth measuring, each by a session of its own: two can overlap, one being copied
/// while the other is computed, and a third would wait for them.
pub(crate) fn in_flight(threads: usize) -> Vec<InstanceShape> {
    [1, 2].map(|instances| InstanceShape { instances, threads }).to_vec()
}

/// How long batches take in one shape, while all of its sessions are at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShapeLatencies {
    /// The shape.
    pub(crate) shape: InstanceShape,
    /// Rows of a batch and the milliseconds it takes, ascending by rows; one at least, and that of the fewest rows.
    pub(crate) milliseconds: Vec<(usize, f64)>,
}

impl ShapeLatencies {
    /// Rows a second of all sessions together, with batches of so many rows.
    fn rows_per_second(&self, (rows, milliseconds): (usize, f64)) -> f64 {
        (self.shape.instances * rows) as f64 / milliseconds * 1e3
    }

    /// The most rows a second that any batch size gives.
    fn throughput(&self) -> f64 {
        self.milliseconds.iter().map(|&measured| self.rows_per_second(measured)).fold(0.0, f64::max)
    }

    /// The duration of the smallest batch, in milliseconds.
    fn smallest(&self) -> f64 {
        self.milliseconds.first().map_or(f64::INFINITY, |&(_, milliseconds)| milliseconds)
    }

    fn profile(&self) -> LatencyProfile {
        let duration = |&(rows, ms): &(usize, f64)| (rows, Duration::from_secs_f64(ms / 1e3));
        LatencyProfile::new(self.milliseconds.iter().map(duration))
    }

    /// Whether it can be what was measured, and not what a broken file says.
    fn is_possible(&self) -> bool {
        let possible = |&(rows, ms): &(usize, f64)| rows >= 1 && ms.is_finite() && (0.0..1e9).contains(&ms);
        (1..=1024).contains(&self.shape.instances)
            && self.shape.threads >= 1
            && !self.milliseconds.is_empty()
            && self.milliseconds.iter().all(possible)
            && self.milliseconds.is_sorted_by(|a, b| a.0 < b.0)
    }
}

/// What was measured of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurements(pub(crate) Vec<ShapeLatencies>);

/// Which shapes serve, as positions among the measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The shape that carries most: its sessions serve while requests queue.
    pub(crate) narrow: usize,
    /// One session with all cores, where it answers a lone request sooner than those, or where that is in doubt.
    pub(crate) wide: Option<usize>,
}

impl Measurements {
    /// Chooses the shapes that serve. At least one must have been measured; `steady` says whether the machine was quiet.
    pub(crate) fn choose(&self, steady: bool) -> Choice {
        let Self(shapes) = self;
        let mut by_sessions: Vec<usize> = (0..shapes.len()).collect();
        by_sessions.sort_by_key(|&at| shapes[at].shape.instances);
        let more = |best: usize, at: usize| {
            let worth_it = shapes[at].throughput() > shapes[best].throughput() * WORTH_THE_MEMORY;
            if worth_it { at } else { best }
        };
        let narrow = by_sessions.iter().copied().reduce(more).unwrap_or(0);
        let single =
            by_sessions.first().copied().filter(|&at| shapes[at].shape.instances == 1 && at != narrow);
        let compared = |at: usize| shapes[at].smallest() / shapes[narrow].smallest();
        // More threads that make a batch longer than one does, while others are at work, speak of a machine that was busy:
        // the policy finds out.
        let in_doubt = |at: &usize| !steady || compared(*at) > 1.0;
        let sooner = |at: &usize| compared(*at) < WORTH_THE_MACHINE;
        Choice { narrow, wide: single.filter(|at| sooner(at) || in_doubt(at)) }
    }

    /// The profiles to schedule by.
    pub(crate) fn profiles(&self, choice: Choice) -> Profiles {
        let Self(shapes) = self;
        Profiles {
            narrow: shapes[choice.narrow].profile(),
            wide: choice.wide.map(|wide| shapes[wide].profile()),
        }
    }

    /// Whether these can be measurements of some of `candidates`.
    pub(crate) fn are_possible(&self, candidates: &[InstanceShape]) -> bool {
        let Self(shapes) = self;
        let known = |latencies: &ShapeLatencies| candidates.contains(&latencies.shape);
        !shapes.is_empty() && shapes.iter().all(|shape| shape.is_possible() && known(shape))
    }

    /// The table: a line for each batch size, and in it milliseconds and rows a second of each shape.
    pub(crate) fn table(&self) -> Vec<(usize, String)> {
        let Self(shapes) = self;
        let mut sizes: Vec<usize> =
            shapes.iter().flat_map(|shape| shape.milliseconds.iter().map(|&(rows, _)| rows)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let cell = |shape: &ShapeLatencies, rows: usize| {
            let measured = shape.milliseconds.iter().find(|&&(measured, _)| measured == rows)?;
            let rate = shape.rows_per_second(*measured);
            Some(format!("{}: {:.2} ms, {rate:.0} rows/s", shape.shape, measured.1))
        };
        let line = |rows: usize| {
            let cells: Vec<String> = shapes.iter().filter_map(|shape| cell(shape, rows)).collect();
            (rows, cells.join("; "))
        };
        sizes.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(shapes: &[InstanceShape]) -> Vec<(usize, usize)> {
        shapes.iter().map(|shape| (shape.instances, shape.threads)).collect()
    }

    /// Sessions, threads, and milliseconds by rows.
    type Row<'a> = (usize, usize, &'a [(usize, f64)]);

    fn measured(shapes: &[Row<'_>]) -> Measurements {
        let latencies = |&(instances, threads, milliseconds): &Row<'_>| ShapeLatencies {
            shape: InstanceShape { instances, threads },
            milliseconds: milliseconds.to_vec(),
        };
        Measurements(shapes.iter().map(latencies).collect())
    }

    #[test]
    fn every_sensible_way_to_share_the_cores_is_a_candidate() {
        assert_eq!(pairs(&candidates(0)), [(1, 1)]);
        assert_eq!(pairs(&candidates(1)), [(1, 1)]);
        assert_eq!(pairs(&candidates(2)), [(1, 2), (2, 1)]);
        assert_eq!(pairs(&candidates(3)), [(1, 3), (3, 1)]);
        assert_eq!(pairs(&candidates(8)), [(1, 8), (8, 1), (4, 2), (2, 4)]);
        assert_eq!(pairs(&candidates(64)), [(1, 64), (16, 4), (8, 8), (4, 16)]);
        for cores in 1..200 {
            assert!(candidates(cores).iter().all(|shape| shape.instances * shape.threads <= cores));
        }
    }

    #[test]
    fn two_cores_serve_a_lone_request_together_and_a_queue_one_by_one() {
        let detector = measured(&[(1, 2, &[(1, 8.5), (8, 68.0)]), (2, 1, &[(1, 14.7), (8, 121.0)])]);
        let choice = detector.choose(true);
        assert_eq!(choice, Choice { narrow: 1, wide: Some(0) });
        let profiles = detector.profiles(choice);
        assert_eq!(profiles.narrow.expected(1), Duration::from_micros(14_700));
        assert_eq!(profiles.wide.map(|wide| wide.expected(1)), Some(Duration::from_micros(8_500)));
    }

    #[test]
    fn more_sessions_must_be_worth_their_memory_and_a_wide_one_the_machine() {
        let equal = measured(&[(1, 2, &[(1, 5.0)]), (2, 1, &[(1, 9.9)])]);
        assert_eq!(equal.choose(true), Choice { narrow: 0, wide: None });
        let no_sooner = measured(&[(1, 2, &[(1, 5.0)]), (2, 1, &[(1, 5.1)])]);
        assert_eq!(no_sooner.choose(true), Choice { narrow: 1, wide: None });
        assert_eq!(no_sooner.choose(false), Choice { narrow: 1, wide: Some(0) }, "who knows");
        let no_use = measured(&[(1, 2, &[(1, 14.8), (8, 68.0)]), (2, 1, &[(1, 14.7), (8, 61.0)])]);
        assert_eq!(
            no_use.choose(true),
            Choice { narrow: 1, wide: Some(0) },
            "two threads are no slower than one"
        );
        let given = measured(&[(3, 1, &[(1, 5.0)])]);
        assert_eq!(given.choose(true), Choice { narrow: 0, wide: None });
    }

    #[test]
    fn of_several_narrow_shapes_the_one_that_carries_most_serves() {
        let halves_win =
            measured(&[(1, 4, &[(1, 5.0)]), (4, 1, &[(1, 15.0), (4, 61.0)]), (2, 2, &[(1, 8.0), (4, 25.0)])]);
        assert_eq!(halves_win.choose(true), Choice { narrow: 2, wide: Some(0) });
    }

    #[test]
    fn the_table_has_a_line_for_each_size_and_a_cell_for_each_shape() {
        let table = measured(&[(1, 2, &[(1, 8.5), (8, 68.0)]), (2, 1, &[(1, 14.7)])]).table();
        assert_eq!(
            table,
            [
                (
                    1,
                    "1 session x 2 threads: 8.50 ms, 118 rows/s; 2 sessions x 1 thread: 14.70 ms, 136 rows/s"
                        .to_owned()
                ),
                (8, "1 session x 2 threads: 68.00 ms, 118 rows/s".to_owned()),
            ]
        );
    }

    #[test]
    fn what_cannot_have_been_measured_is_told_from_what_was() {
        let candidates = candidates(2);
        assert!(measured(&[(1, 2, &[(1, 8.5), (8, 68.0)])]).are_possible(&candidates));
        for wrong in [
            measured(&[]),
            measured(&[(1, 2, &[])]),
            measured(&[(1, 2, &[(0, 1.0)])]),
            measured(&[(1, 2, &[(1, -1.0)])]),
            measured(&[(1, 2, &[(1, f64::NAN)])]),
            measured(&[(1, 2, &[(8, 1.0), (1, 1.0)])]),
            measured(&[(4, 1, &[(1, 1.0)])]),
        ] {
            assert!(!wrong.are_possible(&candidates), "{wrong:?}");
        }
    }
}
