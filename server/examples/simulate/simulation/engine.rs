//! One server with one device, or several that are alike, in invented time.

use std::time::Duration;

/// A request: when it came, and when its answer is worth nothing any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) arrived: Duration,
    pub(crate) deadline: Duration,
}

/// What a policy does when the device is free.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// Accepted requests that it gave up.
    pub(crate) dropped: usize,
    /// To be run at once.
    pub(crate) batch: Vec<Request>,
    /// When to ask again if nothing else happens before.
    pub(crate) wake_at: Option<Duration>,
}

/// A batching policy.
pub(crate) trait Policy {
    /// A request comes. Gives whether it is accepted.
    fn arrive(&mut self, now: Duration, request: Request) -> bool;
    /// The device is free.
    fn next(&mut self, now: Duration) -> Next;
    /// A batch has ended.
    fn ended(&mut self, now: Duration, rows: usize, took: Duration);
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) offered: usize,
    pub(crate) in_time: usize,
    pub(crate) late: usize,
    /// Refused when they came.
    pub(crate) refused: usize,
    /// Accepted, and given up later.
    pub(crate) dropped: usize,
    pub(crate) batches: usize,
    /// Arrival to answer of those that were run, in milliseconds.
    pub(crate) latencies_ms: Vec<f32>,
    /// Those in time and those late, by the second of their arrival.
    pub(crate) in_time_by_second: Vec<usize>,
    pub(crate) late_by_second: Vec<usize>,
}

impl Outcome {
    pub(crate) fn executed(&self) -> usize {
        self.in_time + self.late
    }

    /// Takes in the outcome of another run, but for the single seconds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.in_time += other.in_time;
        self.late += other.late;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.batches += other.batches;
        self.latencies_ms.extend(&other.latencies_ms);
    }
}

/// Lets the requests come, each with the same objective, and the device work. `device` gives what a batch of so many
/// rows takes that starts at that time.
pub(crate) fn run(
    policy: &mut dyn Policy,
    device: &mut dyn FnMut(Duration, usize) -> Duration,
    arrivals: &[Duration],
    objective: Duration,
) -> Outcome {
    run_on(1, policy, device, arrivals, objective)
}

/// As [`run`], with so many devices.
pub(crate) fn run_on(
    lanes: usize,
    policy: &mut dyn Policy,
    device: &mut dyn FnMut(Duration, usize) -> Duration,
    arrivals: &[Duration],
    objective: Duration,
) -> Outcome {
    let mut outcome = Outcome { offered: arrivals.len(), ..Outcome::default() };
    let mut arrivals = arrivals.iter().copied().peekable();
    let mut busy: Vec<(Duration, Duration, Vec<Request>)> = Vec::with_capacity(lanes);
    let mut wake_at: Option<Duration> = None;
    loop {
        let ends = busy.iter().map(|(ends, ..)| *ends).min();
        let Some(now) = [ends, arrivals.peek().copied(), wake_at].into_iter().flatten().min() else {
            return outcome;
        };
        if ends == Some(now) {
            if let Some(at) = busy.iter().position(|(ends, ..)| *ends == now) {
                let (_, started, batch) = busy.remove(at);
                policy.ended(now, batch.len(), now - started);
                answer(&mut outcome, now, &batch);
            }
        } else if arrivals.peek() == Some(&now) {
            arrivals.next();
            let accepted = policy.arrive(now, Request { arrived: now, deadline: now + objective });
            outcome.refused += usize::from(!accepted);
        }
        wake_at = None;
        while busy.len() < lanes {
            let next = policy.next(now);
            outcome.dropped += next.dropped;
            // A policy that asks to be woken in the past would stop the time.
            wake_at = next.wake_at.map(|at| at.max(now + Duration::from_nanos(1)));
            if next.batch.is_empty() {
                break;
            }
            outcome.batches += 1;
            busy.push((now + device(now, next.batch.len()), now, next.batch));
            wake_at = None;
        }
    }
}

fn answer(outcome: &mut Outcome, now: Duration, batch: &[Request]) {
    for request in batch {
        outcome.latencies_ms.push((now - request.arrived).as_secs_f32() * 1e3);
        let late = now > request.deadline;
        let (count, by_second) = if late {
            (&mut outcome.late, &mut outcome.late_by_second)
        } else {
            (&mut outcome.in_time, &mut outcome.in_time_by_second)
        };
        *count += 1;
        let second = request.arrived.as_secs() as usize;
        if by_second.len() <= second {
            by_second.resize(second + 1, 0);
        }
        by_second[second] += 1;
    }
}
