#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::*;
use crate::scheduler::profile::LatencyProfile;
use proptest::prelude::*;

/// A request that is only what the policy sees of it.
#[derive(Clone, Debug)]
struct TestJob {
    id: usize,
    rows: usize,
    deadline: Option<Duration>,
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
        self.deadline.is_some()
    }
    fn priority(&self) -> u32 {
        0
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

fn job(id: usize) -> TestJob {
    TestJob { id, rows: 1, deadline: None, shape: 0, gone: Rc::default() }
}

fn due(id: usize, deadline_ms: u64) -> TestJob {
    TestJob { deadline: Some(ms(deadline_ms)), ..job(id) }
}

fn limits(max_batch_size: usize, queue_size: usize) -> PolicyLimits {
    PolicyLimits {
        default_queue_policy: QueuePolicy { max_queue_size: Some(queue_size), timeout: None },
        ..PolicyLimits::new(max_batch_size, 1)
    }
}

/// A GPU: a batch takes 10 ms and 1 ms for each row, and eight rows are preferred.
fn gpu(queue_size: usize) -> BatchPolicy<TestJob> {
    let profile = LatencyProfile::new([(1, ms(11)), (8, ms(18))]);
    BatchPolicy::new(limits(8, queue_size), profile.into())
}

fn ids(batch: &Option<ClosedBatch<TestJob>>) -> Vec<usize> {
    batch.iter().flat_map(|batch| &batch.jobs).map(|job| job.id).collect()
}

#[test]
fn whoever_is_queued_runs_at_once_and_together() {
    let mut policy = gpu(16);
    policy.submit(ms(0), job(0)).unwrap();
    let first = policy.dispatch(ms(0)).batch;
    assert_eq!(ids(&first), [0]);
    assert_eq!(first.unwrap().closed, CloseReason::Queue);
    for id in 1..=9 {
        policy.submit(ms(0), job(id)).unwrap();
    }
    let second = policy.dispatch(ms(5)).batch;
    assert_eq!(ids(&second), (1..=8).collect::<Vec<_>>());
    assert_eq!(second.unwrap().closed, CloseReason::Full);
    policy.drain();
    assert_eq!(policy.dispatch(ms(6)).batch.unwrap().closed, CloseReason::Drain);
    assert!(policy.dispatch(ms(7)).batch.is_none());
}

#[test]
fn a_batch_is_never_larger_than_the_model_allows() {
    let profile = LatencyProfile::new([(1, ms(11)), (8, ms(18))]);
    let mut policy = BatchPolicy::new(limits(3, 8), profile.into());
    for id in 0..4 {
        policy.submit(ms(0), job(id)).unwrap();
    }
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [0, 1, 2]);
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [3]);
}

#[test]
fn the_earliest_deadline_runs_first_and_equals_in_order_of_arrival() {
    let mut policy = gpu(16);
    for job in [job(0), due(1, 900), due(2, 100), due(3, 900), job(4)] {
        policy.submit(ms(0), job).unwrap();
    }
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [2, 1, 3, 0, 4]);
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let mut policy = gpu(4);
    for id in 0..4 {
        policy.submit(ms(0), job(id)).unwrap();
    }
    assert!(policy.is_full());
    let refused = policy.submit(ms(0), job(4)).unwrap_err();
    assert_eq!((refused.job.id, refused.reason), (4, Refusal::QueueFull { retry_after: ms(18) }));
}

#[test]
fn a_sweep_makes_room_where_nobody_waits_any_more() {
    let mut policy = gpu(3);
    let gone = job(0);
    for job in [gone.clone(), due(1, 5), job(2)] {
        policy.submit(ms(0), job).unwrap();
    }
    gone.gone.set(true);
    let mut dropped: Vec<_> = policy.sweep(ms(5)).into_iter().map(|d| (d.job.id, d.reason)).collect();
    dropped.sort_by_key(|&(id, _)| id);
    assert_eq!(dropped, [(0, DropReason::Abandoned), (1, DropReason::Expired)]);
    assert_eq!(ids(&policy.dispatch(ms(5)).batch), [2]);
}

#[test]
fn the_window_drops_the_head_that_the_real_batch_would_make_late() {
    let mut policy = gpu(16);
    // Alone, 0 would take 14 ms at the quantile and be in time; eight rows take 23.
    policy.submit(ms(0), due(0, 20)).unwrap();
    for id in 1..8 {
        policy.submit(ms(0), due(id, 100)).unwrap();
    }
    let dispatch = policy.dispatch(ms(0));
    assert_eq!(dispatch.dropped[0].job.id, 0);
    assert!(matches!(dispatch.dropped[0].reason, DropReason::Crowded { .. }));
    assert_eq!(ids(&dispatch.batch), (1..8).collect::<Vec<_>>());
}

#[test]
fn a_lone_request_runs_if_it_fits_by_the_mean_and_is_hopeless_otherwise() {
    let mut policy = gpu(16);
    policy.submit(ms(0), due(0, 12)).unwrap();
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [0]);
    policy.completed(ms(11), Lane::Narrow, 1, Some(ms(11)));
    policy.submit(ms(0), due(1, 21)).unwrap();
    let dispatch = policy.dispatch(ms(11));
    assert_eq!(dispatch.dropped[0].reason, DropReason::Hopeless { needs: ms(11) });
    assert!(dispatch.batch.is_none());
}

#[test]
fn after_a_second_without_a_run_one_request_runs_as_a_probe() {
    let mut policy = gpu(16);
    for _ in 0..50 {
        policy.completed(ms(100), Lane::Narrow, 1, Some(ms(500)));
    }
    for deadline in [1000, 1090] {
        policy.submit(ms(0), due(deadline, deadline as u64)).unwrap();
        assert!(policy.dispatch(ms(950)).batch.is_none());
    }
    policy.submit(ms(0), due(3, 1190)).unwrap();
    policy.submit(ms(0), due(4, 1190)).unwrap();
    assert_eq!(ids(&policy.dispatch(ms(1100)).batch), [3], "the profile would refuse everything for ever");
    policy.completed(ms(1111), Lane::Narrow, 1, Some(ms(11)));
    assert!(policy.dispatch(ms(1111)).batch.is_none());
}

#[test]
fn shapes_do_not_mix_and_a_callers_own_batch_runs_whole() {
    let mut policy = gpu(16);
    for (id, rows, shape) in [(0, 3, 0), (1, 1, 1), (2, 4, 0), (3, 2, 0), (4, 1, 0)] {
        policy.submit(ms(0), TestJob { rows, shape, ..job(id) }).unwrap();
    }
    // 3 does not fit into the eight rows, and 4 does not overtake it.
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [0, 2]);
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [1]);
    assert_eq!(ids(&policy.dispatch(ms(0)).batch), [3, 4]);

    let cpu = LatencyProfile::new([(1, ms(8)), (8, ms(64))]);
    let mut cpu = BatchPolicy::new(limits(8, 8), cpu.into());
    cpu.submit(ms(0), TestJob { rows: 6, ..job(0) }).unwrap();
    cpu.submit(ms(0), job(1)).unwrap();
    assert_eq!(ids(&cpu.dispatch(ms(0)).batch), [0]);
    assert_eq!(ids(&cpu.dispatch(ms(0)).batch), [1]);
}

/// What happens to a policy in a property test.
#[derive(Clone, Debug)]
enum Event {
    Submit { rows: usize, patience_ms: Option<u64>, shape: u8 },
    HangUp { nth: usize },
    Pass { ms: u64 },
    Dispatch,
    Complete { share: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_usize..=8, proptest::option::of(0_u64..120), 0_u8..2)
            .prop_map(|(rows, patience_ms, shape)| Event::Submit { rows, patience_ms, shape }),
        1 => (0_usize..64).prop_map(|nth| Event::HangUp { nth }),
        2 => (0_u64..40).prop_map(|ms| Event::Pass { ms }),
        3 => Just(Event::Dispatch),
        2 => (50_u64..400).prop_map(|share| Event::Complete { share }),
    ]
}

/// Dispatches, checks what comes of it, and gives rows and expected duration of the batch.
fn dispatch(
    policy: &mut BatchPolicy<TestJob>,
    now: Duration,
    open: &mut BTreeSet<usize>,
) -> Result<Option<(usize, Duration)>, TestCaseError> {
    let Dispatch { dropped, batch, .. } = policy.dispatch(now);
    for Dropped { job, reason } in dropped {
        prop_assert!(open.remove(&job.id), "{} ended twice", job.id);
        let deadline = job.deadline.unwrap_or(Duration::MAX);
        match reason {
            DropReason::Abandoned => prop_assert!(job.gone.get()),
            DropReason::Expired => prop_assert!(deadline <= now),
            DropReason::Crowded { .. } | DropReason::Hopeless { .. } => {
                prop_assert!(now < deadline && deadline < Duration::MAX);
            }
        }
    }
    let Some(batch) = batch else { return Ok(None) };
    prop_assert!(!batch.jobs.is_empty());
    prop_assert_eq!(batch.rows, batch.jobs.iter().map(|job| job.rows).sum::<usize>());
    prop_assert!(batch.rows <= 8);
    prop_assert!(batch.jobs.iter().all(|job| job.shape == batch.jobs[0].shape));
    prop_assert!(batch.jobs.is_sorted_by_key(|job| (job.deadline.unwrap_or(Duration::MAX), job.id)));
    for job in &batch.jobs {
        prop_assert!(open.remove(&job.id), "{} ended twice", job.id);
        prop_assert!(!job.gone.get() && job.deadline.is_none_or(|deadline| deadline > now));
    }
    Ok(Some((batch.rows, batch.expected)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No request is lost, answered twice, mixed with other shapes, or run after its deadline or its caller's end;
    /// the limits are kept, and requests that are equally urgent keep their order.
    #[test]
    fn every_request_ends_once_and_as_it_should(events in proptest::collection::vec(event(), 1..120)) {
        let mut policy = gpu(12);
        let (mut now, mut next_id) = (ms(0), 0);
        let (mut open, mut running) = (BTreeSet::new(), Vec::new());
        let mut jobs: Vec<TestJob> = Vec::new();
        for event in events {
            match event {
                Event::Submit { rows, patience_ms, shape } => {
                    let deadline = patience_ms.map(|patience| now + ms(patience));
                    let job = TestJob { id: next_id, rows, deadline, shape, gone: Rc::default() };
                    next_id += 1;
                    let full = policy.len() == 12;
                    prop_assert_eq!(policy.submit(ms(0), job.clone()).is_err(), full);
                    if !full {
                        open.insert(job.id);
                        jobs.push(job);
                    }
                }
                Event::HangUp { nth } => if let Some(job) = jobs.get(nth) { job.gone.set(true) },
                Event::Pass { ms: passed } => now += ms(passed),
                Event::Dispatch => running.extend(dispatch(&mut policy, now, &mut open)?),
                Event::Complete { share } => if let Some((rows, expected)) = running.pop() {
                    policy.completed(now, Lane::Narrow, rows, Some(expected * u32::try_from(share).unwrap() / 100));
                },
            }
            prop_assert_eq!(policy.len(), open.len());
        }
        policy.drain();
        while dispatch(&mut policy, now, &mut open)?.is_some() {}
        prop_assert!(open.is_empty(), "{open:?} never ended");
    }
}
