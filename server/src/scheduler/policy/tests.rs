#![allow(clippy::unwrap_used)]

mod configured;
mod fairness;
mod properties;
mod trials;

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::scheduler::profile::LatencyProfile;

/// A request that is only what the policy sees of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct TestJob {
    id: usize,
    rows: usize,
    deadline: Option<Duration>,
    own: bool,
    priority: u32,
    shape: u8,
    gone: Rc<Cell<bool>>,
}

impl Job for TestJob {
    fn rows(&self) -> usize {
        self.rows
    }
    fn deadline(&self) -> Option<Duration> {
        self.deadline
    }
    fn has_own_deadline(&self) -> bool {
        self.own
    }
    fn priority(&self) -> u32 {
        self.priority
    }
    fn is_abandoned(&self) -> bool {
        self.gone.get()
    }
    fn batches_with(&self, other: &Self) -> bool {
        self.shape == other.shape
    }
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Without any deadline.
fn job(id: usize) -> TestJob {
    TestJob { id, rows: 1, ..TestJob::default() }
}

/// With a deadline of its caller's.
fn due(id: usize, deadline_ms: u64) -> TestJob {
    TestJob { deadline: Some(ms(deadline_ms)), own: true, ..job(id) }
}

/// A GPU: a batch takes 10 ms and 1 ms for each row; eight rows are a full batch.
fn gpu_profile() -> LatencyProfile {
    LatencyProfile::new([(1, ms(11)), (8, ms(18))])
}

fn gpu() -> BatchPolicy<TestJob> {
    with(PolicyLimits::new(8, 1))
}

fn with(limits: PolicyLimits) -> BatchPolicy<TestJob> {
    BatchPolicy::new(limits, gpu_profile().into())
}

/// A processor with two narrow lanes of 15 ms a row, and a wide one of 8.
fn processor() -> BatchPolicy<TestJob> {
    let profile = |row_ms| LatencyProfile::new([(1, ms(row_ms)), (8, ms(8 * row_ms))]);
    let limits = PolicyLimits { wide: true, ..PolicyLimits::new(8, 2) };
    BatchPolicy::new(limits, Profiles { narrow: profile(15), wide: Some(profile(8)) })
}

impl BatchPolicy<TestJob> {
    /// Dispatches, and gives the ids of the batch.
    fn run(&mut self, now: Duration) -> Vec<usize> {
        self.dispatch(now).batch.iter().flat_map(|batch| &batch.jobs).map(|job| job.id).collect()
    }

    /// Ends such a batch, or one that nobody has seen start.
    fn ends(&mut self, now: Duration, lane: Lane, rows: usize, duration: Option<Duration>) {
        let unseen = |lanes: &mut Lanes| {
            lanes.start(lane, rows, now.saturating_sub(duration.unwrap_or_default()), ms(0))
        };
        let id = self.lanes.find(lane, rows).unwrap_or_else(|| unseen(&mut self.lanes));
        self.completed(now, id, duration);
    }

    /// Ends a batch that took as long as expected, and dispatches.
    fn run_next(&mut self, now: Duration, rows: usize) -> Vec<usize> {
        self.ends(now, Lane::Narrow, rows, None);
        self.run(now)
    }
}

#[test]
fn lanes_that_end_in_any_order_are_timed_each_by_itself() {
    // Eight lanes, always one ahead of the next by a millisecond, and then none: every batch takes 8 ms.
    let mut policy = BatchPolicy::new(PolicyLimits::new(1, 8), LatencyProfile::new([(1, ms(8))]).into());
    let mut running = Vec::new();
    for now in 0..1_000 {
        let mut ended: Vec<RunId> =
            running.extract_if(.., |&mut (_, at)| at + 8 == now).map(|(id, _)| id).collect();
        ended.reverse();
        ended.into_iter().for_each(|id| policy.completed(ms(now), id, Some(ms(8))));
        if now < 980 {
            policy.submit(ms(now), job(now as usize)).unwrap();
        }
        running.extend(policy.dispatch(ms(now)).batch.map(|batch| (batch.id, now)));
    }
    assert!(running.is_empty() && policy.lanes.is_idle());
    assert_eq!(policy.profiles().narrow.expected(1), ms(8));
    assert_eq!(policy.profiles().narrow.q99(1), ms(8));
}

#[test]
fn lanes_that_are_broken_are_not_planned_with() {
    let mut policy = BatchPolicy::new(PolicyLimits::new(1, 2), LatencyProfile::new([(1, ms(100))]).into());
    for id in 0..2 {
        policy.submit(ms(0), job(id)).unwrap();
        assert_eq!(policy.run(ms(0)), [id]);
    }
    for id in 2..4 {
        policy.submit(ms(0), due(id, 390)).unwrap();
    }
    // Behind one more on each lane it starts after 200 ms; behind three on one lane, after 300.
    assert!(policy.would_refuse(ms(0), 1, Some(ms(400))).is_none());
    policy.set_working_lanes(1);
    assert!(policy.would_refuse(ms(0), 1, Some(ms(400))).is_some());
    policy.set_working_lanes(2);
    assert!(policy.would_refuse(ms(0), 1, Some(ms(400))).is_none());
}

#[test]
fn a_hundredth_of_the_time_is_kept_for_the_way_of_the_answer() {
    let mut policy = BatchPolicy::new(PolicyLimits::new(1, 1), LatencyProfile::new([(1, ms(100))]).into());
    policy.submit(ms(0), job(0)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    let mut in_time = |deadline| policy.would_refuse(ms(0), 1, Some(ms(deadline))).is_none();
    assert!(!in_time(227), "100 ms, what runs may take longer, 125 ms and a hundredth of it all");
    assert!(in_time(236));
    assert!((228..236).all(|at| !in_time(at) || in_time(at + 1)));
    // What could just be done on an idle device is not worth starting.
    let mut idle = gpu();
    let mut in_time = |deadline| idle.would_refuse(ms(0), 1, Some(Duration::from_micros(deadline))).is_none();
    assert!(!in_time(11_100) && in_time(11_200));
}

#[test]
fn whoever_is_queued_runs_at_once_and_together() {
    let mut policy = gpu();
    policy.submit(ms(0), job(0)).unwrap();
    let first = policy.dispatch(ms(0)).batch.unwrap();
    assert_eq!((first.closed, first.lane, first.expected), (CloseReason::Queue, Lane::Narrow, ms(11)));
    for id in 1..=9 {
        policy.submit(ms(1), job(id)).unwrap();
    }
    assert!(policy.dispatch(ms(5)).batch.is_none(), "the only lane is in use");
    policy.ends(ms(11), Lane::Narrow, 1, Some(ms(11)));
    let second = policy.dispatch(ms(11)).batch.unwrap();
    assert_eq!(second.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!((second.rows, second.closed), (8, CloseReason::Full));
    policy.drain();
    policy.ends(ms(29), Lane::Narrow, 8, Some(ms(18)));
    assert_eq!(policy.dispatch(ms(29)).batch.unwrap().closed, CloseReason::Drain);
    assert!(policy.is_empty());
}

#[test]
fn the_earliest_deadline_runs_first_and_equals_in_order_of_arrival() {
    let mut policy = gpu();
    policy.submit(ms(0), job(9)).unwrap();
    assert_eq!(policy.run(ms(0)), [9]);
    for job in [job(0), due(1, 900), due(2, 100), due(3, 900), job(4)] {
        policy.submit(ms(0), job).unwrap();
    }
    assert_eq!(policy.run_next(ms(11), 1), [2, 1, 3, 0, 4]);
}

#[test]
fn who_has_no_deadline_is_not_overtaken_for_ever() {
    let mut policy = gpu();
    policy.submit(ms(0), job(0)).unwrap();
    policy.submit(ms(0), TestJob { shape: 1, ..job(1) }).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    let mut now = ms(0);
    let ran = (2..).find(|&id| {
        now += ms(11);
        policy.submit(now, due(id, now.as_millis() as u64 + 500)).unwrap();
        policy.run_next(now, 1) == [1]
    });
    assert!(ran.is_some() && now > ms(9000) && now < LONGEST_QUEUE, "{now:?}");
}

#[test]
fn a_request_that_would_be_late_is_refused_when_it_comes() {
    let mut policy = gpu();
    policy.submit(ms(0), due(0, 1000)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    // It would start at 11 ms; one row takes up to 13.75, and the quarter of doubt is counted for the wait.
    assert_eq!(policy.would_refuse(ms(1), 1, Some(ms(30))), None);
    let refusal = policy.would_refuse(ms(1), 1, Some(ms(20))).unwrap();
    assert!(matches!(refusal, Refusal::Crowded { retry_after } if retry_after >= ms(11)), "{refusal:?}");
    // On an idle device it would take 11 ms; nobody does it in 5.
    assert_eq!(policy.would_refuse(ms(1), 1, Some(ms(6))), Some(Refusal::Hopeless { needs: ms(11) }));
    for id in 1..=16 {
        policy.submit(ms(1), due(id, 60)).unwrap();
    }
    // Behind two full batches: 11 + 18 + 18 ms, and up to 13.75 for itself.
    assert_eq!(policy.would_refuse(ms(1), 1, Some(ms(75))), None);
    assert!(matches!(policy.submit(ms(1), due(17, 60)).unwrap_err().reason, Refusal::Crowded { .. }));
}

#[test]
fn nobody_is_pushed_past_a_deadline_that_was_accepted() {
    let mut policy = gpu();
    policy.submit(ms(0), due(0, 1000)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    for id in 1..=8 {
        policy.submit(ms(0), due(id, 40)).unwrap();
    }
    // It would be in time in their place, and one of them would not be behind it.
    assert!(matches!(policy.submit(ms(0), due(9, 39)).unwrap_err().reason, Refusal::Crowded { .. }));
    policy.submit(ms(0), due(10, 90)).unwrap();
    assert_eq!(policy.run_next(ms(11), 1), (1..=8).collect::<Vec<_>>());
}

#[test]
fn a_lone_request_without_its_own_deadline_is_always_run() {
    let limits = PolicyLimits { slo: Some(ms(30)), ..PolicyLimits::new(8, 1) };
    let mut policy = with(limits);
    for _ in 0..20 {
        policy.ends(ms(0), Lane::Narrow, 1, Some(ms(500)));
    }
    let promised = TestJob { deadline: policy.deadline(ms(900), None).map(|_| ms(930)), ..job(0) };
    policy.submit(ms(900), promised.clone()).unwrap();
    assert_eq!(policy.run(ms(940)), [0], "neither the prediction nor the objective counts");
    assert!(policy.submit(ms(941), TestJob { deadline: Some(ms(971)), ..job(1) }).is_err());
}

#[test]
fn an_objective_that_cannot_be_kept_is_raised_and_follows_the_device() {
    let slow = with(PolicyLimits { slo: Some(ms(20)), ..PolicyLimits::new(8, 1) });
    // 11 ms in the mean, 13.75 at the quantile.
    assert_eq!(slow.objective(), Some(Duration::from_micros(27_500)));
    assert_eq!(slow.deadline(ms(100), None), Some(Duration::from_micros(127_500)));
    assert_eq!(slow.deadline(ms(100), Some(ms(110))), Some(ms(110)));
    let mut policy = with(PolicyLimits { slo: Some(ms(40)), ..PolicyLimits::new(8, 1) });
    assert_eq!((policy.objective(), policy.preferred_batch_size()), (Some(ms(40)), 6));
    for _ in 0..50 {
        policy.ends(ms(0), Lane::Narrow, 1, Some(ms(22)));
    }
    assert!(policy.objective() > Some(ms(50)));
    for _ in 0..50 {
        policy.ends(ms(0), Lane::Narrow, 1, Some(ms(4)));
    }
    assert_eq!((policy.objective(), policy.preferred_batch_size()), (Some(ms(40)), 8));
    assert_eq!(gpu().objective(), None);
}

#[test]
fn the_window_drops_the_head_that_the_real_batch_would_make_late() {
    let mut policy = gpu();
    // It is taken while 0 is alone in sight; then eight rows are to be run, and take 18 ms.
    policy.submit(ms(0), due(0, 17)).unwrap();
    for id in 1..10 {
        policy.submit(ms(0), due(id, 100)).unwrap();
    }
    let dispatch = policy.dispatch(ms(0));
    assert_eq!(dispatch.dropped[0].job.id, 0);
    assert!(matches!(dispatch.dropped[0].reason, DropReason::Crowded { .. }));
    assert_eq!(dispatch.batch.unwrap().rows, 8);
}

#[test]
fn a_lone_request_runs_if_it_fits_by_the_mean_and_is_hopeless_otherwise() {
    let mut policy = gpu();
    policy.submit(ms(0), due(0, 12)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    policy.ends(ms(11), Lane::Narrow, 1, Some(ms(11)));
    let refused = policy.submit(ms(11), due(1, 21)).unwrap_err();
    assert_eq!(refused.reason, Refusal::Hopeless { needs: ms(11) });
    policy.submit(ms(11), due(2, 23)).unwrap();
    let dispatch = policy.dispatch(ms(14));
    assert_eq!(dispatch.dropped[0].reason, DropReason::Hopeless { needs: ms(11) });
    assert!(dispatch.batch.is_none());
}

#[test]
fn after_a_second_without_a_run_one_request_runs_as_a_probe() {
    let mut policy = gpu();
    for _ in 0..50 {
        policy.ends(ms(100), Lane::Narrow, 1, Some(ms(500)));
    }
    assert!(policy.submit(ms(1000), due(0, 1090)).is_err());
    policy.submit(ms(1100), due(1, 1190)).unwrap();
    assert_eq!(policy.run(ms(1100)), [1], "the profile would refuse everything for ever");
    assert!(policy.submit(ms(1101), due(2, 1190)).is_err());
    policy.ends(ms(1111), Lane::Narrow, 1, Some(ms(11)));
    assert!(policy.submit(ms(1111), due(3, 1190)).is_err());
}

#[test]
fn those_who_left_or_expired_make_room() {
    let mut policy = gpu();
    policy.submit(ms(0), job(0)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    let leaving: Vec<_> = (1..=40).map(job).collect();
    for job in &leaving {
        policy.submit(ms(0), TestJob { deadline: Some(ms(150)), ..job.clone() }).unwrap();
    }
    assert!(policy.would_refuse(ms(10), 1, Some(ms(100))).is_none(), "it is more urgent than they are");
    let last = due(41, 151);
    let before = (41..).find(|&id| policy.submit(ms(1), due(id, 151)).is_err()).unwrap();
    leaving.iter().for_each(|job| job.gone.set(true));
    assert!(policy.would_refuse(ms(10), 1, Some(ms(152))).is_none(), "nor is it refused on its headers");
    policy.submit(ms(10), last).unwrap();
    let dispatch = policy.dispatch(ms(11));
    assert_eq!((dispatch.dropped.len(), dispatch.batch), (40, None));
    assert!(dispatch.dropped.iter().all(|dropped| dropped.reason == DropReason::Abandoned));
    assert_eq!(policy.len(), before - 41 + 1);
}

#[test]
fn shapes_do_not_mix_and_a_callers_own_batch_runs_whole() {
    let mut policy = gpu();
    for (id, rows, shape) in [(0, 3, 0), (1, 1, 1), (2, 4, 0), (3, 2, 0), (4, 1, 0)] {
        policy.submit(ms(0), TestJob { rows, shape, ..job(id) }).unwrap();
    }
    // 3 does not fit into the eight rows, and 4 does not overtake it.
    assert_eq!(policy.run(ms(0)), [0, 2]);
    assert_eq!(policy.run_next(ms(17), 7), [1]);
    assert_eq!(policy.run_next(ms(28), 1), [3, 4]);

    let mut cpu = processor();
    cpu.submit(ms(0), TestJob { rows: 6, ..job(0) }).unwrap();
    cpu.submit(ms(0), job(1)).unwrap();
    assert_eq!(cpu.run(ms(0)), [0]);
    assert_eq!(cpu.run(ms(0)), [1]);
}

#[test]
fn a_lone_request_gets_the_whole_machine_and_several_share_it() {
    let mut policy = processor();
    assert_eq!(policy.preferred_batch_size(), 1);
    policy.submit(ms(0), job(0)).unwrap();
    let wide = policy.dispatch(ms(0)).batch.unwrap();
    assert_eq!((wide.lane, wide.expected), (Lane::Wide, ms(8)));
    for id in 1..=3 {
        policy.submit(ms(1), job(id)).unwrap();
    }
    assert!(policy.dispatch(ms(2)).batch.is_none(), "a wide run excludes all others");
    policy.ends(ms(8), Lane::Wide, 1, Some(ms(8)));
    assert_eq!(policy.dispatch(ms(8)).batch.unwrap().lane, Lane::Narrow);
    assert_eq!(policy.dispatch(ms(8)).batch.unwrap().lane, Lane::Narrow);
    assert!(policy.dispatch(ms(8)).batch.is_none());
    policy.ends(ms(23), Lane::Narrow, 1, Some(ms(15)));
    assert_eq!(policy.dispatch(ms(23)).batch.unwrap().lane, Lane::Narrow, "the other one still runs");
    policy.ends(ms(23), Lane::Narrow, 1, Some(ms(15)));
    policy.ends(ms(38), Lane::Narrow, 1, Some(ms(15)));
    policy.submit(ms(38), job(4)).unwrap();
    assert_eq!(policy.dispatch(ms(38)).batch.unwrap().lane, Lane::Wide);
}

#[test]
fn a_wide_lane_that_was_slow_once_is_used_again() {
    let mut policy = processor();
    let mut now = ms(0);
    for _ in 0..20 {
        policy.submit(now, job(0)).unwrap();
        assert_eq!(policy.dispatch(now).batch.unwrap().lane, Lane::Wide);
        now += ms(80);
        policy.ends(now, Lane::Wide, 1, Some(ms(80)));
    }
    // With a deadline that it is not expected to keep, an instance is used that is.
    let deadline = Some(now + ms(40));
    policy.submit(now, TestJob { deadline, own: true, ..job(1) }).unwrap();
    assert_eq!(policy.dispatch(now).batch.unwrap().lane, Lane::Narrow);
}

#[test]
fn the_whole_machine_makes_what_an_instance_does_not() {
    let mut policy = processor();
    policy.submit(ms(0), due(0, 10)).unwrap();
    policy.submit(ms(0), due(1, 100)).unwrap();
    let batch = policy.dispatch(ms(0)).batch.unwrap();
    assert_eq!((batch.lane, batch.jobs[0].id), (Lane::Wide, 0));
}
