//! Nobody starves: whoever waits is served after a bounded number of batches, whatever comes after them.

use super::*;
use proptest::prelude::*;

/// Rows of the largest request in the flood.
const LARGEST: usize = 2;

/// A device with one lane in invented time: a batch ends when the profile expects it.
struct Device {
    policy: BatchPolicy<TestJob>,
    now: Duration,
    ends: Option<(Duration, usize)>,
    /// The batches so far.
    batches: Vec<Vec<TestJob>>,
}

impl Device {
    fn new(limits: PolicyLimits) -> Self {
        Self { policy: with(limits), now: ms(0), ends: None, batches: Vec::new() }
    }

    /// Lets a millisecond pass.
    fn tick(&mut self) {
        self.now += ms(1);
        if let Some((at, rows)) = self.ends.filter(|&(at, _)| at <= self.now) {
            self.policy.ends(at, Lane::Narrow, rows, Some(gpu_profile().expected(rows)));
            self.ends = None;
        }
        if let Some(batch) = self.policy.dispatch(self.now).batch {
            self.ends = Some((self.now + batch.expected, batch.rows));
            self.batches.push(batch.jobs);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// A lone request of a low priority, while more of the highest come than can be run: it waits for those before it,
    /// and for those that come in the time by which they may overtake it. Each batch that it is not in was so full that
    /// it had no room.
    #[test]
    fn a_lone_request_of_any_priority_waits_a_bounded_number_of_batches(
        priority in 1_u32..=3,
        ahead in prop::collection::vec(1..=LARGEST, 0..200),
        flood in prop::collection::vec(0..=LARGEST, 2_500),
    ) {
        let mut device = Device::new(PolicyLimits { priority_levels: 3, ..PolicyLimits::new(8, 1) });
        let mut ids = 1..;
        let mut high = |rows| TestJob { rows, priority: 1, ..job(ids.next().unwrap()) };
        let mut before_it = 0;
        for rows in ahead {
            before_it += rows;
            device.policy.submit(device.now, high(rows)).unwrap();
        }
        device.policy.submit(device.now, TestJob { priority, ..job(0) }).unwrap();
        let may_overtake = device.now + PRIORITY_STEP * (priority - 1);
        for rows in flood.into_iter().chain(std::iter::repeat_n(0, 20_000)) {
            device.tick();
            if device.batches.last().is_some_and(|batch| batch.iter().any(|job| job.id == 0)) {
                break;
            }
            // Who is refused overtakes nobody.
            if rows > 0 && device.policy.submit(device.now, high(rows)).is_ok() && device.now <= may_overtake {
                before_it += rows;
            }
        }
        let its = device.batches.iter().position(|batch| batch.iter().any(|job| job.id == 0));
        let fullest = device.policy.preferred_batch_size();
        let bound = before_it / (fullest + 1 - LARGEST);
        prop_assert!(its.is_some_and(|its| its <= bound), "batch {its:?}, and {bound} may come before it");
    }
}

/// Under four times the load that can be answered within the objective, a priority that is refused all the time is still
/// served: between two of its requests lie no more batches than fit into the time after which it counts as starved, and
/// into the objective, within which whoever is taken is run.
#[test]
fn a_priority_that_is_refused_is_served_every_so_many_batches() {
    let slo = ms(100);
    let mut device =
        Device::new(PolicyLimits { priority_levels: 3, slo: Some(slo), ..PolicyLimits::new(8, 1) });
    for id in 0..40_000 {
        if id % 2 == 0 {
            device.tick();
        }
        let (priority, deadline) =
            (if id % 20 == 0 { 3 } else { 1 }, device.policy.deadline(device.now, None));
        let _ = device.policy.submit(device.now, TestJob { priority, deadline, ..job(id) });
    }
    let low = |batch: &Vec<TestJob>| batch.iter().any(|job| job.priority == 3);
    let served: Vec<usize> = (0..device.batches.len()).filter(|&at| low(&device.batches[at])).collect();
    let shortest = gpu_profile().expected(device.policy.preferred_batch_size());
    let arrives_every = ms(10);
    let bound =
        ((STARVED_AFTER + slo + 2 * arrives_every).as_secs_f64() / shortest.as_secs_f64()).ceil() as usize;
    let last = [0].into_iter().chain(served.iter().copied());
    let next = served.iter().copied().chain([device.batches.len()]);
    let longest = last.zip(next).map(|(last, next)| next - last).max().unwrap();
    assert!(longest <= bound, "{longest} batches without one of it, where {bound} may be");
}
