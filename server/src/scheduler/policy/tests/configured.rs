//! What `dynamic_batching` asks for.

use super::*;

fn delayed(preferred: &[usize], delay_ms: u64) -> BatchPolicy<TestJob> {
    with(PolicyLimits {
        preferred_batch_sizes: preferred.to_vec(),
        max_queue_delay: ms(delay_ms),
        ..PolicyLimits::new(8, 1)
    })
}

#[test]
fn a_delay_waits_for_a_full_batch_and_no_longer() {
    let mut policy = delayed(&[], 5);
    policy.submit(ms(10), job(0)).unwrap();
    let waiting = policy.dispatch(ms(10));
    assert_eq!((waiting.batch, waiting.wake_at), (None, Some(ms(15))));
    policy.submit(ms(12), job(1)).unwrap();
    assert_eq!(policy.dispatch(ms(12)).wake_at, Some(ms(15)), "the oldest counts");
    let batch = policy.dispatch(ms(15)).batch.unwrap();
    assert_eq!((batch.rows, batch.closed), (2, CloseReason::Delay));
    policy.ends(ms(30), Lane::Narrow, 2, None);
    for id in 2..10 {
        policy.submit(ms(30), job(id)).unwrap();
    }
    let batch = policy.dispatch(ms(30)).batch.unwrap();
    assert_eq!((batch.rows, batch.closed), (8, CloseReason::Full));
}

#[test]
fn a_delay_never_costs_a_deadline() {
    let mut policy = delayed(&[], 50);
    policy.submit(ms(0), due(0, 40)).unwrap();
    let wake_at = policy.dispatch(ms(0)).wake_at.unwrap();
    // Eight rows take up to 22.5 ms.
    assert!(wake_at > ms(15) && wake_at < ms(18), "{wake_at:?}");
    assert_eq!(policy.dispatch(wake_at).batch.unwrap().closed, CloseReason::Deadline);
    let mut draining = delayed(&[], 50);
    draining.submit(ms(0), job(0)).unwrap();
    draining.drain();
    assert_eq!(draining.dispatch(ms(0)).batch.unwrap().closed, CloseReason::Drain);
}

#[test]
fn preferred_sizes_mean_what_they_mean_to_triton() {
    let mut policy = delayed(&[2, 4], 5);
    let mut next = 0;
    let mut submit = |policy: &mut BatchPolicy<TestJob>, now: u64, count: usize| {
        for _ in 0..count {
            policy.submit(ms(now), job(next)).unwrap();
            next += 1;
        }
    };
    // The largest preferred size there is; the rest waits.
    submit(&mut policy, 0, 7);
    assert_eq!(policy.run(ms(0)).len(), 4);
    assert_eq!(policy.run_next(ms(3), 4).len(), 2);
    policy.ends(ms(4), Lane::Narrow, 2, None);
    assert_eq!(policy.dispatch(ms(4)).wake_at, Some(ms(5)));
    submit(&mut policy, 4, 2);
    // Whoever waited too long takes everything along.
    assert_eq!(policy.run(ms(5)).len(), 3);
    // Without a delay nobody waits, and a preferred size is taken where there is one.
    let mut policy = delayed(&[4], 0);
    submit(&mut policy, 6, 7);
    assert_eq!(policy.run(ms(6)).len(), 4);
    assert_eq!(policy.run_next(ms(20), 4).len(), 3);
}

#[test]
fn a_queue_is_as_long_and_as_patient_as_configured() {
    let policy = QueuePolicy { max_queue_size: Some(2), timeout: Some(ms(20)) };
    let mut policy = with(PolicyLimits { default_queue_policy: policy, ..PolicyLimits::new(8, 1) });
    policy.submit(ms(0), job(0)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    policy.submit(ms(0), job(1)).unwrap();
    policy.submit(ms(1), job(2)).unwrap();
    let refused = policy.submit(ms(1), job(3)).unwrap_err();
    assert!(matches!(refused.reason, Refusal::QueueFull { retry_after } if retry_after > ms(10)));
    // The batch that runs should have ended at 11 ms, and does not.
    policy.ends(ms(21), Lane::Narrow, 1, Some(ms(21)));
    let dispatch = policy.dispatch(ms(21));
    assert_eq!((dispatch.dropped[0].job.id, dispatch.dropped[0].reason), (1, DropReason::Expired));
    assert_eq!(dispatch.batch.unwrap().jobs[0].id, 2);
}

fn prioritized() -> PolicyLimits {
    let second = QueuePolicy { max_queue_size: Some(1), timeout: None };
    PolicyLimits {
        priority_levels: 3,
        default_priority: 2,
        queue_policies: [(3, second)].into(),
        ..PolicyLimits::new(8, 1)
    }
}

fn of(id: usize, priority: u32) -> TestJob {
    TestJob { priority, shape: priority as u8, ..job(id) }
}

#[test]
fn higher_priorities_run_first_and_each_has_its_own_queue() {
    let mut policy = with(prioritized());
    policy.submit(ms(0), job(9)).unwrap();
    assert_eq!(policy.run(ms(0)), [9]);
    for job in [of(0, 3), of(1, 0), of(2, 1), of(3, 7)] {
        policy.submit(ms(0), job).unwrap();
    }
    assert!(matches!(policy.submit(ms(0), of(4, 3)).unwrap_err().reason, Refusal::QueueFull { .. }));
    assert_eq!(policy.run_next(ms(11), 1), [2]);
    // 0 and 7 are no priorities: they are of the default one.
    assert_eq!(policy.run_next(ms(22), 1), [1]);
    assert_eq!(policy.run_next(ms(33), 1), [3]);
    assert_eq!(policy.run_next(ms(44), 1), [0]);
}

#[test]
fn on_headers_alone_nobody_is_refused_whom_another_priority_would_let_in() {
    let full = QueuePolicy { max_queue_size: Some(1), timeout: None };
    let some = PolicyLimits { queue_policies: [(2, full)].into(), ..prioritized() };
    let every = PolicyLimits { default_queue_policy: full, queue_policies: [].into(), ..prioritized() };
    for (limits, refused) in [(some, false), (every, true)] {
        let mut policy = with(limits);
        policy.submit(ms(0), job(9)).unwrap();
        assert_eq!(policy.run(ms(0)), [9]);
        for priority in 1..=3 {
            policy.submit(ms(0), of(priority as usize, priority)).unwrap();
        }
        assert!(policy.submit(ms(0), of(4, 2)).is_err());
        assert_eq!(policy.would_refuse(ms(0), 1, None).is_some(), refused);
    }
}

#[test]
fn a_low_priority_waits_its_time_and_is_then_the_next() {
    let mut policy = with(prioritized());
    policy.submit(ms(0), of(0, 1)).unwrap();
    policy.submit(ms(0), of(1, 3)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    let mut now = ms(0);
    let ran = (2..1000).find(|&id| {
        now += ms(11);
        policy.submit(now, of(id, 1)).unwrap();
        policy.run_next(now, 1) == [1]
    });
    assert!(ran.is_some() && now > PRIORITY_STEP && now <= 2 * PRIORITY_STEP + ms(11), "{now:?}");
}

#[test]
fn a_priority_that_is_always_refused_has_its_turn() {
    let mut policy = with(PolicyLimits { slo: Some(ms(100)), ..prioritized() });
    let (mut now, mut low, mut ends) = (ms(0), 0, None);
    for id in 0..20_000 {
        // Two requests a millisecond, where a batch of eight takes 18: four times what can be done.
        now += Duration::from_micros(500);
        if let Some((at, rows)) = ends.filter(|&(at, _)| at <= now) {
            policy.ends(at, Lane::Narrow, rows, Some(gpu_profile().expected(rows)));
            ends = None;
        }
        let priority = if id % 4 == 0 { 3 } else { 1 };
        let deadline = policy.deadline(now, None);
        let _ = policy.submit(now, TestJob { priority, deadline, ..job(id) });
        if let Some(batch) = policy.dispatch(now).batch {
            low += batch.jobs.iter().filter(|job| job.priority == 3).count();
            ends = Some((now + batch.expected, batch.rows));
        }
    }
    assert!(low >= 5, "{low} of the low priority in ten seconds");
    assert!(low <= 100, "{low} of the low priority before the high one");
}

#[test]
fn with_ordering_preserved_arrival_alone_counts() {
    let mut policy = with(PolicyLimits { preserve_ordering: true, ..PolicyLimits::new(8, 2) });
    for job in [due(0, 900), due(1, 800), TestJob { shape: 1, ..job(2) }, due(3, 700)] {
        policy.submit(ms(0), job).unwrap();
    }
    assert_eq!(policy.run(ms(0)), [0, 1], "3 may not overtake 2");
    assert!(policy.run(ms(0)).is_empty(), "another instance could be faster");
    assert_eq!(policy.run_next(ms(12), 2), [2]);
    assert_eq!(policy.run_next(ms(23), 1), [3]);
}

#[test]
fn what_the_way_takes_is_kept_free_and_never_more_than_a_tenth() {
    let mut policy = BatchPolicy::new(PolicyLimits::new(1, 1), LatencyProfile::new([(1, ms(100))]).into());
    policy.submit(ms(0), job(0)).unwrap();
    assert_eq!(policy.run(ms(0)), [0]);
    let mut least = |way| {
        policy.set_way(ms(way));
        (200..400).find(|&deadline| policy.would_refuse(ms(0), 1, Some(ms(deadline))).is_none()).unwrap()
    };
    let (none, short, long, hours) = (least(0), least(10), least(20), least(9_999_999));
    // A hundredth is kept free in any case, and that is 2 ms here.
    assert!((none + 7..=none + 9).contains(&short), "{none} {short}");
    assert!((short + 9..=short + 11).contains(&long), "{short} {long}");
    assert!(hours <= none * 10 / 9 + 1, "{none} {hours}");
}
