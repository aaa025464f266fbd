//! The same policy on invented devices in invented time: a small discrete-event simulation.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::scheduler::profile::LatencyProfile;

struct Request {
    deadline: Duration,
}

impl Job for Request {
    fn rows(&self) -> usize {
        1
    }
    fn deadline(&self) -> Option<Duration> {
        Some(self.deadline)
    }
    fn has_own_deadline(&self) -> bool {
        true
    }
    fn priority(&self) -> u32 {
        0
    }
    fn is_abandoned(&self) -> bool {
        false
    }
    fn batches_with(&self, _: &Self) -> bool {
        true
    }
}

/// Numbers that look random and are the same each time (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    /// In 0..1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Time to the next of `rate` arrivals a second.
    fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.uniform()).ln() / rate
    }
}

/// Seconds that a batch of so many rows takes.
type Device = fn(usize, &mut Random) -> f64;

/// A GPU, on which batching pays.
fn gpu(rows: usize, _: &mut Random) -> f64 {
    (1.2 + 0.12 * rows as f64) / 1e3
}

/// A processor, on which it does not.
fn cpu(rows: usize, _: &mut Random) -> f64 {
    7.8 * rows as f64 / 1e3
}

/// The GPU with noise of 10 % and one batch in 500 that stalls for 30 ms.
fn noisy(rows: usize, random: &mut Random) -> f64 {
    let stall = if random.uniform() < 0.002 { 0.030 } else { 0.0 };
    gpu(rows, random) * (0.9 + 0.2 * random.uniform()) + stall
}

#[derive(Debug, Default)]
struct Outcome {
    offered: usize,
    in_time: usize,
    late: usize,
    executed: usize,
    largest: usize,
    latencies: Vec<f64>,
}

impl Outcome {
    /// Answers in time, as a share of what the device could have given.
    fn goodput(&self, load: f64) -> f64 {
        self.in_time as f64 / self.offered as f64 * load / load.min(1.0)
    }
}

const SECONDS: f64 = 5.0;
const MAX_BATCH: usize = 32;

/// Poisson arrivals at `load` times the device's capacity, each with the same objective.
fn simulate(device: Device, load: f64, objective_ms: f64, told: f64) -> Outcome {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // What the device is measured to take at load, times an error.
    let measured = [1, 2, 4, 8, 16, 32].map(|rows| {
        let mut quiet = Random(1);
        (rows, Duration::from_secs_f64(device(rows, &mut quiet) * told))
    });
    let limits = PolicyLimits {
        default_queue_policy: QueuePolicy { max_queue_size: Some(256), timeout: None },
        ..PolicyLimits::new(MAX_BATCH, 1)
    };
    let mut policy = BatchPolicy::new(limits, LatencyProfile::new(measured).into());
    let capacity =
        policy.preferred_batch_size() as f64 / device(policy.preferred_batch_size(), &mut Random(1));
    let seconds = Duration::from_secs_f64;

    let mut outcome = Outcome::default();
    let mut arrival = random.exponential(capacity * load);
    let mut busy: Option<(f64, f64, Vec<Request>)> = None;
    while arrival < SECONDS || busy.is_some() {
        let ends = busy.as_ref().map_or(f64::INFINITY, |(end, ..)| *end);
        let now = if arrival < SECONDS { ends.min(arrival) } else { ends };
        if now == ends {
            let (end, start, jobs) = busy.take().unwrap();
            policy.completed(seconds(end), Lane::Narrow, jobs.len(), Some(seconds(end - start)));
            for job in jobs {
                let in_time = seconds(end) <= job.deadline;
                outcome.in_time += usize::from(in_time);
                outcome.late += usize::from(!in_time);
                outcome.executed += 1;
                outcome.latencies.push(end - (job.deadline.as_secs_f64() - objective_ms / 1e3));
            }
        } else {
            outcome.offered += 1;
            // A refusal is an answer; nothing is lost by it.
            let _ = policy.submit(seconds(now), Request { deadline: seconds(arrival + objective_ms / 1e3) });
            arrival += random.exponential(capacity * load);
        }
        if busy.is_none()
            && let Some(batch) = policy.dispatch(seconds(now)).batch
        {
            assert!(batch.jobs.iter().all(|job| job.deadline > seconds(now)), "run after its deadline");
            assert!(batch.rows <= MAX_BATCH);
            outcome.largest = outcome.largest.max(batch.rows);
            busy = Some((now + device(batch.rows, &mut random), now, batch.jobs));
        }
    }
    outcome.latencies.sort_by(f64::total_cmp);
    outcome
}

#[test]
fn overload_costs_little_goodput_and_nothing_runs_late_without_noise() {
    for (device, objective_ms) in [(gpu as Device, 20.0), (gpu, 100.0), (cpu, 100.0)] {
        for load in [0.5, 1.0, 2.0, 5.0] {
            let outcome = simulate(device, load, objective_ms, 1.0);
            let goodput = outcome.goodput(load);
            assert_eq!(outcome.late, 0, "at {load} times the capacity");
            assert!(
                goodput > 0.90,
                "{goodput:.3} of the capacity at {load} times, objective {objective_ms} ms"
            );
            assert!(goodput < 1.05, "{goodput:.3} is more than there is");
        }
    }
}

#[test]
fn noise_and_stalls_cost_little() {
    for load in [1.0, 2.0, 5.0] {
        let outcome = simulate(noisy, load, 20.0, 1.0);
        let late = outcome.late as f64 / outcome.executed as f64;
        assert!(late < 0.02, "{late:.4} of what ran was late at {load} times the capacity");
        assert!(outcome.goodput(load) > 0.80, "{:.3} at {load}", outcome.goodput(load));
    }
}

#[test]
fn a_wrong_profile_is_corrected_by_what_runs() {
    for told in [0.5, 3.0] {
        let outcome = simulate(gpu, 2.0, 20.0, told);
        assert!(outcome.goodput(2.0) > 0.85, "{:.3} when told {told} times the truth", outcome.goodput(2.0));
    }
}

#[test]
fn little_load_means_no_waiting_and_much_load_fills_batches() {
    let quiet = simulate(gpu, 0.01, 100.0, 1.0);
    let median = quiet.latencies[quiet.latencies.len() / 2];
    assert!(median < 1.35e-3, "{median}");
    assert!(simulate(gpu, 2.0, 100.0, 1.0).largest > 16);
    assert_eq!(simulate(cpu, 2.0, 100.0, 1.0).largest, 1, "a processor gains nothing by batching");
}
