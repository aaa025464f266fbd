//! What holds whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use proptest::prelude::*;

/// What happens to a policy.
#[derive(Clone, Debug)]
enum Event {
    Submit { rows: usize, patience_ms: Option<u64>, own: bool, shape: u8, priority: u32 },
    HangUp { nth: usize },
    Pass { ms: u64 },
    Dispatch,
    Complete { share: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let patience = proptest::option::of(0_u64..160);
    prop_oneof![
        4 => (1_usize..=8, patience, any::<bool>(), 0_u8..2, 0_u32..4).prop_map(
            |(rows, patience_ms, own, shape, priority)| {
                Event::Submit { rows, patience_ms, own: own && patience_ms.is_some(), shape, priority }
            }
        ),
        1 => (0_usize..64).prop_map(|nth| Event::HangUp { nth }),
        2 => (0_u64..40).prop_map(|ms| Event::Pass { ms }),
        3 => Just(Event::Dispatch),
        2 => (50_u64..400).prop_map(|share| Event::Complete { share }),
    ]
}

/// Every way to configure a policy that changes what it does.
fn limits() -> impl Strategy<Value = PolicyLimits> {
    let preferred = prop_oneof![Just(vec![]), Just(vec![4]), Just(vec![2, 6])];
    let slo = proptest::option::of(20_u64..300);
    (
        1_usize..4,
        any::<bool>(),
        0_u32..4,
        preferred,
        0_u64..20,
        proptest::option::of(1_usize..12),
        slo,
        any::<bool>(),
    )
        .prop_map(
            |(lanes, wide, priority_levels, preferred_batch_sizes, delay, queue, slo, preserve_ordering)| {
                PolicyLimits {
                    wide,
                    priority_levels,
                    preferred_batch_sizes,
                    preserve_ordering,
                    max_queue_delay: ms(delay),
                    slo: slo.map(ms),
                    default_queue_policy: QueuePolicy { max_queue_size: queue, timeout: None },
                    ..PolicyLimits::new(8, lanes)
                }
            },
        )
}

/// A policy, and what is known from outside about its requests.
struct Watched {
    policy: BatchPolicy<TestJob>,
    limits: PolicyLimits,
    now: Duration,
    open: BTreeMap<usize, TestJob>,
    ended: BTreeSet<usize>,
    running: Vec<(Lane, usize, Duration)>,
}

impl Watched {
    fn new(limits: PolicyLimits) -> Self {
        let wide = LatencyProfile::new([(1, ms(7)), (8, ms(14))]);
        let profiles = Profiles { narrow: gpu_profile(), wide: limits.wide.then_some(wide) };
        let policy = BatchPolicy::new(limits.clone(), profiles);
        let (open, ended) = (BTreeMap::new(), BTreeSet::new());
        Self { policy, limits, now: ms(0), open, ended, running: Vec::new() }
    }

    fn end(&mut self, job: &TestJob) -> Result<(), TestCaseError> {
        prop_assert!(
            self.open.remove(&job.id).is_some() && self.ended.insert(job.id),
            "{} ended twice",
            job.id
        );
        Ok(())
    }

    fn submit(&mut self, job: TestJob) -> Result<(), TestCaseError> {
        let (idle, queued) = (self.running.is_empty(), self.policy.len());
        let id = job.id;
        match self.policy.submit(self.now, job.clone()) {
            Ok(()) => {
                self.open.insert(id, job);
            }
            Err(Refused { job: refused, reason }) => {
                prop_assert_eq!(refused.id, id);
                prop_assert!(job.own || !idle || queued > 0, "an idle instance was refused: {reason:?}");
                if let Refusal::Crowded { retry_after } | Refusal::QueueFull { retry_after } = reason {
                    prop_assert!(retry_after > Duration::ZERO && retry_after < ms(60_000));
                }
            }
        }
        Ok(())
    }

    /// Dispatches once, and checks what comes of it. Gives whether there was a batch.
    fn dispatch(&mut self) -> Result<bool, TestCaseError> {
        let now = self.now;
        let Dispatch { dropped, batch, wake_at } = self.policy.dispatch(now);
        for Dropped { job, reason } in dropped {
            self.end(&job)?;
            let deadline = job.deadline.unwrap_or(Duration::MAX);
            match reason {
                DropReason::Abandoned => prop_assert!(job.gone.get()),
                DropReason::Expired => prop_assert!(deadline <= now),
                DropReason::Crowded { .. } | DropReason::Hopeless { .. } => {
                    prop_assert!(now < deadline && deadline < Duration::MAX);
                }
            }
        }
        prop_assert!(wake_at.is_none_or(|at| at > now && at <= now + self.limits.max_queue_delay));
        let Some(batch) = batch else { return Ok(false) };
        prop_assert!(!batch.jobs.is_empty() && batch.rows <= 8);
        prop_assert_eq!(batch.rows, batch.jobs.iter().map(|job| job.rows).sum::<usize>());
        prop_assert!(batch.jobs.iter().all(|job| job.shape == batch.jobs[0].shape));
        if self.limits.preserve_ordering {
            prop_assert!(batch.jobs.is_sorted_by_key(|job| job.id));
            prop_assert!(self.running.is_empty());
        } else if self.limits.priority_levels <= 1 {
            prop_assert!(batch.jobs.is_sorted_by_key(|job| (job.deadline.unwrap_or(Duration::MAX), job.id)));
        }
        // A wide run is alone.
        prop_assert!(self.running.iter().all(|&(lane, ..)| lane == Lane::Narrow));
        prop_assert!(batch.lane == Lane::Narrow || (self.running.is_empty() && self.limits.wide));
        self.running.push((batch.lane, batch.rows, batch.expected));
        prop_assert!(self.running.len() <= self.limits.lanes);
        for job in &batch.jobs {
            self.end(job)?;
            prop_assert!(!job.gone.get(), "{} is run for nobody", job.id);
            prop_assert!(!job.own || job.deadline > Some(now), "{} is run after its deadline", job.id);
        }
        Ok(true)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// No request is lost, answered twice, mixed with other shapes, or run after its own deadline or its caller's
    /// end; limits and lanes are kept, requests that are equally urgent keep their order, and an idle instance
    /// refuses nobody who has no deadline.
    #[test]
    fn every_request_ends_once_and_as_it_should(
        limits in limits(),
        events in proptest::collection::vec(event(), 1..150),
    ) {
        let mut watched = Watched::new(limits);
        let mut jobs: Vec<TestJob> = Vec::new();
        for event in events {
            match event {
                Event::Submit { rows, patience_ms, own, shape, priority } => {
                    let own_deadline = patience_ms.filter(|_| own).map(|patience| watched.now + ms(patience));
                    let deadline = watched.policy.deadline(watched.now, own_deadline);
                    let job = TestJob { id: jobs.len(), rows, deadline, own, priority, shape, gone: Rc::default() };
                    jobs.push(job.clone());
                    watched.submit(job)?;
                }
                Event::HangUp { nth } => if let Some(job) = jobs.get(nth) { job.gone.set(true) },
                Event::Pass { ms: passed } => watched.now += ms(passed),
                Event::Dispatch => { watched.dispatch()?; }
                Event::Complete { share } => if let Some((lane, rows, expected)) = watched.running.pop() {
                    let took = expected * u32::try_from(share).unwrap() / 100;
                    watched.policy.ends(watched.now, lane, rows, Some(took));
                },
            }
            prop_assert!(watched.policy.len() <= watched.open.len());
        }
        watched.policy.drain();
        loop {
            while watched.dispatch()? {}
            let Some((lane, rows, _)) = watched.running.pop() else { break };
            watched.policy.ends(watched.now, lane, rows, None);
        }
        prop_assert!(watched.open.is_empty(), "{:?} never ended", watched.open.keys());
    }

    /// On a device that does what was measured, whoever is run is in time, and who is accepted is run: nobody who
    /// comes later takes that away.
    #[test]
    fn what_is_accepted_is_in_time_on_a_steady_device(
        arrivals in proptest::collection::vec((0_u64..6_000, 30_u64..200), 1..250),
    ) {
        let mut policy = gpu();
        for _ in 0..300 {
            policy.ends(ms(0), Lane::Narrow, 8, Some(ms(18)));
        }
        let mut arrivals = arrivals.into_iter().enumerate().peekable();
        let (mut now, mut next, mut accepted, mut dropped) = (ms(0), ms(0), 0_u32, 0_u32);
        let mut ends: Option<(Duration, usize)> = None;
        while arrivals.peek().is_some() || ends.is_some() {
            let arrival = arrivals.peek().map(|_| next);
            now = ends.map(|(at, _)| at).into_iter().chain(arrival).min().unwrap_or(now);
            if let Some((at, rows)) = ends.filter(|&(at, _)| at == now) {
                policy.ends(at, Lane::Narrow, rows, Some(gpu_profile().expected(rows)));
                ends = None;
            } else if let Some((id, (gap_us, patience))) = arrivals.next() {
                let deadline = Some(now + ms(patience));
                accepted += u32::from(policy.submit(now, TestJob { deadline, own: true, ..job(id) }).is_ok());
                next = now + Duration::from_micros(gap_us);
            }
            if ends.is_none() {
                let dispatch = policy.dispatch(now);
                dropped += dispatch.dropped.len() as u32;
                if let Some(batch) = dispatch.batch {
                    let end = now + gpu_profile().expected(batch.rows);
                    prop_assert!(batch.jobs.iter().all(|job| job.deadline >= Some(end)), "run and late");
                    ends = Some((end, batch.rows));
                }
            }
        }
        // Arrivals are guessed: a burst may fill the batch of someone who was to be nearly alone in it.
        prop_assert!(dropped * 10 <= accepted + 30, "{dropped} of {accepted} dropped");
    }
}
