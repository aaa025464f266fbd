//! How many machines a load needs: lets the batching policy serve invented arrivals on the device that a profile
//! describes, and finds the rate up to which nearly every request is answered within the objective.
//!
//! `cargo run --release -p model-serving --example size -- --profile FILE --rate 500 --slo-ms 100`, where FILE is one of
//! those that the server keeps in `--profile-cache`: what it measured of a model on that machine.

#![allow(clippy::print_stdout)]

#[path = "simulate/simulation/mod.rs"]
#[allow(dead_code, reason = "the comparison of policies uses more of it")]
mod simulation;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use model_serving::scheduler::LatencyProfile;
use model_serving::scheduler::policy::PolicyLimits;
use serde::Deserialize;

use simulation::convoy::Convoy;
use simulation::engine::{Outcome, run_on};
use simulation::traffic::{Pattern, Random};

/// Requests of a trace; a rate is given up as soon as more than the share of them is not answered in time.
const REQUESTS: f64 = 40_000.0;
/// Halvings of the interval in which the rate is looked for: to less than a thousandth of it.
const STEPS: usize = 11;

#[derive(Parser)]
#[command(about = "How many machines a load needs, by simulation")]
struct Arguments {
    /// A file that the server keeps in `--profile-cache`.
    #[arg(long)]
    profile: PathBuf,
    /// Images a second of all machines together.
    #[arg(long)]
    rate: f64,
    /// The latency objective in milliseconds.
    #[arg(long, default_value_t = 100)]
    slo_ms: u64,
    /// The share of requests that may be refused or late.
    #[arg(long, default_value_t = 0.001)]
    refused: f64,
    /// The share of the raw throughput that the server reaches: `convoy bench` measures it.
    #[arg(long, default_value_t = 0.9)]
    served: f64,
    /// How much batches vary: the standard deviation of the logarithm of what they take.
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
}

/// The part of a kept profile that counts here.
#[derive(Deserialize)]
struct Kept {
    max_batch_size: usize,
    device: String,
    measurements: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    shape: Shape,
    milliseconds: Vec<(usize, f64)>,
}

#[derive(Deserialize)]
struct Shape {
    instances: usize,
    threads: usize,
}

impl Measured {
    /// Rows a second of all instances with the best batch.
    fn throughput(&self) -> f64 {
        let of = |&(rows, ms): &(usize, f64)| (self.shape.instances * rows) as f64 / ms * 1e3;
        self.milliseconds.iter().map(of).fold(0.0, f64::max)
    }
}

/// One machine.
struct Machine<'a> {
    lanes: usize,
    max_batch: usize,
    profile: LatencyProfile,
    arguments: &'a Arguments,
}

impl Machine<'_> {
    fn objective(&self) -> Duration {
        Duration::from_millis(self.arguments.slo_ms)
    }

    fn serve(&self, pattern: Pattern, rate: f64) -> Outcome {
        let length = Duration::from_secs_f64(REQUESTS / rate);
        let arrivals = pattern.arrivals(rate, length, &mut Random::new(1));
        let mut random = Random::new(1001);
        let mut device = |_: Duration, rows: usize| {
            self.profile.measured(rows).mul_f64((self.arguments.noise * random.normal()).exp())
        };
        let limits = PolicyLimits::new(self.max_batch, self.lanes);
        let mut policy = Convoy::with_profile(limits, self.objective(), self.profile.clone());
        run_on(self.lanes, &mut policy, &mut device, &arrivals, self.objective())
    }

    /// The highest rate at which no more requests than allowed are not answered in time, and what became of them.
    fn usable(&self, pattern: Pattern, throughput: f64) -> Option<(f64, Outcome)> {
        let (mut low, mut high, mut found) = (0.0, throughput, None);
        for _ in 0..STEPS {
            let rate = (low + high) / 2.0;
            let outcome = self.serve(pattern, rate);
            if outcome.in_time as f64 >= (1.0 - self.arguments.refused) * outcome.offered as f64 {
                low = rate;
                found = Some((rate, outcome));
            } else {
                high = rate;
            }
        }
        found
    }
}

fn quantile(latencies: &mut [f32], share: f64) -> f32 {
    latencies.sort_unstable_by(f32::total_cmp);
    latencies
        .get(((latencies.len() as f64 * share) as usize).min(latencies.len() - 1))
        .copied()
        .unwrap_or(f32::NAN)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let kept: Kept = serde_json::from_slice(&std::fs::read(&arguments.profile)?)?;
    let best = kept.measurements.iter().max_by(|a, b| a.throughput().total_cmp(&b.throughput()));
    let best = best.ok_or("The profile holds no measurements.")?;
    // What the server itself costs makes every batch longer.
    let duration = |&(rows, ms): &(usize, f64)| (rows, Duration::from_secs_f64(ms / 1e3 / arguments.served));
    let machine = Machine {
        lanes: best.shape.instances,
        max_batch: kept.max_batch_size,
        profile: LatencyProfile::new(best.milliseconds.iter().map(duration)),
        arguments: &arguments,
    };
    let throughput = best.throughput() * arguments.served;
    println!(
        "{}: {} sessions x {} threads, at most {} rows a batch, {throughput:.1} images/s served at most",
        kept.device, best.shape.instances, best.shape.threads, kept.max_batch_size
    );
    println!("within {} ms for all but {} %:", arguments.slo_ms, arguments.refused * 100.0);
    for pattern in Pattern::ALL {
        let Some((rate, mut outcome)) = machine.usable(pattern, throughput) else {
            println!("{:8} no rate: a lone request takes too long for this objective", pattern.name());
            continue;
        };
        let machines = (arguments.rate / rate).ceil();
        let latencies = &mut outcome.latencies_ms;
        println!(
            "{:8} {rate:6.1} images/s a machine ({:.0} % of it), p50 {:.1} ms, p99 {:.1} ms: {machines} machines for {}/s, {} with one to spare",
            pattern.name(),
            rate / throughput * 100.0,
            quantile(latencies, 0.5),
            quantile(latencies, 0.99),
            arguments.rate,
            machines + 1.0
        );
    }
    Ok(())
}
