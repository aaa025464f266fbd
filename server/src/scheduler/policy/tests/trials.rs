//! A lane that was measured on a busy machine.

use super::*;

/// Two narrow lanes and a wide one, which take so many milliseconds for a row, or were measured to.
fn machine(narrow_ms: u64, wide_ms: u64, slo: Option<Duration>) -> BatchPolicy<TestJob> {
    let profile = |row_ms| LatencyProfile::new([(1, ms(row_ms)), (8, ms(8 * row_ms))]);
    let limits = PolicyLimits { wide: true, slo, ..PolicyLimits::new(8, 2) };
    BatchPolicy::new(limits, Profiles { narrow: profile(narrow_ms), wide: Some(profile(wide_ms)) })
}

/// Lone requests, one after the other, on lanes that really take so long; gives the lanes.
fn lone(policy: &mut BatchPolicy<TestJob>, requests: usize, (narrow_ms, wide_ms): (u64, u64)) -> Vec<Lane> {
    let mut now = ms(0);
    let mut lanes = Vec::new();
    for _ in 0..requests {
        now += ms(1_000);
        let deadline = policy.deadline(now, None);
        policy.submit(now, TestJob { deadline, ..job(0) }).unwrap();
        let lane = policy.dispatch(now).batch.unwrap().lane;
        let took = ms(if lane == Lane::Wide { wide_ms } else { narrow_ms });
        policy.ends(now + took, lane, 1, Some(took));
        lanes.push(lane);
    }
    lanes
}

fn count(lanes: &[Lane], lane: Lane) -> usize {
    lanes.iter().filter(|&&other| other == lane).count()
}

#[test]
fn a_wide_lane_that_was_measured_too_slow_comes_into_use() {
    // The machine was busy at load: 30 ms were measured where 8 are true.
    let mut policy = machine(15, 30, None);
    let lanes = lone(&mut policy, 400, (15, 8));
    assert_eq!(lanes[..3], [Lane::Narrow; 3]);
    assert!(count(&lanes[300..], Lane::Wide) >= 98, "{:?}", &lanes[300..]);
}

#[test]
fn a_wide_lane_that_is_no_quicker_costs_next_to_nothing() {
    let mut policy = machine(15, 30, None);
    let lanes = lone(&mut policy, 5_000, (15, 30));
    let tried = count(&lanes, Lane::Wide);
    assert!((7..=30).contains(&tried), "{tried} of 5000");
    // Nor is one tried that would be worse by far.
    let mut policy = machine(15, 100, None);
    assert_eq!(count(&lone(&mut policy, 5_000, (15, 100)), Lane::Wide), 0);
}

#[test]
fn a_trial_makes_its_deadline_and_is_alone() {
    // 1.25 times 32 ms are over what a request has.
    let mut policy = machine(15, 32, Some(ms(38)));
    assert_eq!(policy.objective(), Some(ms(38)));
    assert_eq!(count(&lone(&mut policy, 1_000, (15, 8)), Lane::Wide), 0);
    // Two at a time.
    let mut policy = machine(15, 30, None);
    for round in 1..100 {
        let now = ms(round * 100);
        policy.submit(now, job(0)).unwrap();
        policy.submit(now, job(1)).unwrap();
        for _ in 0..2 {
            assert_eq!(policy.dispatch(now).batch.unwrap().lane, Lane::Narrow);
        }
        for _ in 0..2 {
            policy.ends(now + ms(15), Lane::Narrow, 1, Some(ms(15)));
        }
    }
}

#[test]
fn an_objective_that_a_noisy_measurement_raised_comes_down_although_the_wide_lane_serves_all() {
    let mut policy = machine(184, 9, Some(ms(100)));
    assert_eq!(policy.objective(), Some(ms(460)), "twice the q99 of what was measured");
    let lanes = lone(&mut policy, 400, (15, 9));
    assert_eq!(policy.objective(), Some(ms(100)));
    assert!(count(&lanes, Lane::Narrow) <= 8, "{} of 400", count(&lanes, Lane::Narrow));
    // With nothing in doubt any more, the wide lane serves all of them.
    assert_eq!(count(&lone(&mut policy, 1_000, (15, 9)), Lane::Narrow), 0);
}

/// A request every 4 ms for so long, with 100 ms of its caller's or of the objective, twice what two narrow lanes of 15 ms can run; gives how many were run.
fn overload(policy: &mut BatchPolicy<TestJob>, own: bool, from_ms: u64, for_ms: u64) -> usize {
    let mut running: Vec<(u64, RunId)> = Vec::new();
    let mut ran = 0;
    for at in from_ms..from_ms + for_ms {
        let now = ms(at);
        for (_, id) in running.extract_if(.., |&mut (ends, _)| ends == at).collect::<Vec<_>>() {
            policy.completed(now, id, Some(ms(1)));
        }
        if at % 4 == 0 {
            let deadline = policy.deadline(now, own.then_some(now + ms(100)));
            let _ = policy.submit(now, TestJob { deadline, own, ..job(at as usize) });
        }
        while let Some(batch) = policy.dispatch(now).batch {
            ran += batch.rows;
            running.push((at + if batch.lane == Lane::Wide { 9 } else { 15 }, batch.id));
        }
    }
    for (ends, id) in running {
        policy.completed(ms(ends), id, Some(ms(1)));
    }
    ran
}

#[test]
fn narrow_lanes_that_were_slow_for_a_while_come_back_although_the_wide_lane_serves_whoever_is_alone() {
    // What callers who try again at once do to a processor: some runs take several times as long as others.
    for (slowest, every, own) in [
        (60, 4, false),
        (90, 4, false),
        (150, 4, false),
        (1_000, 4, false),
        (80, 1, true),
        (95, 1, true),
        (150, 1, true),
    ] {
        let mut policy = machine(15, 9, (!own).then_some(ms(100)));
        for run in 0..200 {
            let took = ms(if run % every == every - 1 { slowest } else { 20 });
            policy.ends(ms(run * 1_000), Lane::Narrow, 1, Some(took));
        }
        let ran = overload(&mut policy, own, 200_000, 10_000);
        let later = overload(&mut policy, own, 210_050, 1_000);
        assert!(later >= 120, "{slowest} ms: {later} of 133, and {ran} in 10 s before");
    }
}
