//! The short version of `examples/simulate`: the batching policy against others in invented time.

#[path = "../examples/simulate/simulation/mod.rs"]
#[allow(dead_code, reason = "the example uses more of it")]
mod simulation;

use std::time::Duration;

use simulation::baselines::{Kind, Setting};
use simulation::convoy::Convoy;
use simulation::device::Device;
use simulation::engine::run_on;
use simulation::recovery::recoveries;
use simulation::study::{Cell, Row, Scale, study};
use simulation::traffic::{Pattern, Random};

const SHORT: Scale = Scale { seeds: 2, sweep_seeds: 1, requests: 3_000.0, shortest: Duration::from_secs(1) };

/// A few settings are enough to find nearly the best.
fn sweep(kind: Kind) -> Vec<Setting> {
    let queues = [None, Some(8), Some(128)];
    queues.map(|queue| Setting { kind, queue, drop_expired: true }).into()
}

fn rows(device: Device, pattern: Pattern, objective_ms: u64, loads: &[f64]) -> Vec<Row> {
    let objective = Duration::from_millis(objective_ms);
    let cell = |&load| Cell { device, pattern, objective, load };
    loads.iter().map(|load| study(cell(load), &SHORT, sweep)).collect()
}

#[test]
fn on_a_steady_device_it_is_as_good_as_the_best_and_nothing_is_late() {
    for (device, objective_ms) in [(Device::Gpu, 20), (Device::Gpu, 100), (Device::Cpu, 100)] {
        let rows = rows(device, Pattern::Poisson, objective_ms, &[0.5, 1.0, 2.0, 5.0]);
        let peak = rows.iter().map(|row| row.ours.rate).fold(0.0, f64::max);
        for row in &rows {
            assert!(row.ratio() >= 0.99, "{:.4} of {:?} in {:?}", row.ratio(), row.best().setting, row.cell);
            assert_eq!(row.ours.late, 0.0, "{:?}", row.cell);
            assert!(
                row.ours.dropped < 0.01,
                "{:.4} accepted and dropped in {:?}",
                row.ours.dropped,
                row.cell
            );
        }
        assert!(
            rows[3].ours.rate >= 0.95 * peak,
            "{} of {peak} at five times the capacity",
            rows[3].ours.rate
        );
    }
}

#[test]
fn bursts_cost_little_and_a_fixed_delay_without_a_limit_loses_everything() {
    for row in rows(Device::Gpu, Pattern::Bursts, 100, &[0.5, 1.0, 5.0]) {
        assert!(row.ratio() >= 0.96, "{:.4} of {:?} in {:?}", row.ratio(), row.best().setting, row.cell);
        assert_eq!(row.ours.late, 0.0);
    }
    let overloaded = &rows(Device::Gpu, Pattern::Poisson, 20, &[2.0])[0];
    assert!(overloaded.without_delay().goodput < 0.1, "{}", overloaded.without_delay().goodput);
}

#[test]
fn noise_and_stalls_make_few_late() {
    for row in rows(Device::Noisy, Pattern::Poisson, 100, &[1.0, 2.0, 5.0]) {
        assert!(row.ours.late < 0.005, "{:.4} late in {:?}", row.ours.late, row.cell);
        assert!(row.ratio() >= 0.99, "{:.4} of {:?} in {:?}", row.ratio(), row.best().setting, row.cell);
    }
}

/// Two processors that each take 15 ms for a row, as two sessions of one thread do; every batch by itself, with noise.
#[test]
fn several_lanes_carry_what_they_can_in_time() {
    let (lanes, objective, seconds) = (2, Duration::from_millis(100), 20);
    let mut noise = Random::new(1);
    let mut device = |_: Duration, rows: usize| {
        Duration::from_millis(15).mul_f64(rows as f64 * (0.9 + 0.2 * noise.uniform()))
    };
    let told = 15.0 / Device::Cpu.typical(1).as_secs_f64() / 1e3;
    let capacity = 2_000.0 / 15.0;
    for load in [0.5, 0.9, 2.0, 5.0] {
        let arrivals =
            Pattern::Poisson.arrivals(capacity * load, Duration::from_secs(seconds), &mut Random::new(7));
        let mut policy = Convoy::with_lanes(lanes, Device::Cpu, objective, told);
        let outcome = run_on(lanes, &mut policy, &mut device, &arrivals, objective);
        let goodput =
            outcome.in_time as f64 / seconds as f64 / capacity.min(arrivals.len() as f64 / seconds as f64);
        assert!(goodput >= 0.97, "{goodput} at {load} times the capacity");
        let late = outcome.late as f64 / outcome.executed() as f64;
        assert!(late < 0.005, "{late} late at {load} times the capacity");
    }
}

#[test]
fn a_lone_request_waits_for_nobody() {
    for device in [Device::Gpu, Device::Cpu] {
        let row = &rows(device, Pattern::Poisson, 100, &[0.1])[0];
        assert!(row.ours.p50_ms <= 1.01 * row.without_delay().p50_ms, "{}", row.ours.p50_ms);
    }
}

#[test]
fn stalls_slowdowns_and_wrong_profiles_are_recovered_from() {
    for recovery in recoveries(Device::Cpu, Duration::from_millis(100), 2.0) {
        assert!(recovery.share >= 0.97, "{recovery:?}");
        assert_eq!(recovery.late, 0.0, "{recovery:?}");
    }
}
