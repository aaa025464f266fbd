//! A device that stalls, one that becomes slower, and a profile that is wrong: each must be recovered from.

use std::time::Duration;

use super::convoy::Convoy;
use super::device::Device;
use super::engine::{Outcome, run};
use super::traffic::{Pattern, Random};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// One batch, three seconds after the start, takes two seconds more.
    Stall,
    /// From three seconds after the start on, every batch takes one and a half times as long.
    Slowdown,
    /// The device was measured to take so many times what it takes.
    WrongProfile(f64),
}

impl Trouble {
    pub(crate) const ALL: [Self; 5] = [
        Self::Stall,
        Self::Slowdown,
        Self::WrongProfile(1.0 / 3.0),
        Self::WrongProfile(3.0),
        Self::WrongProfile(10.0),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Stall => "a stall of 2 s".to_owned(),
            Self::Slowdown => "1.5 times as slow from 3 s on".to_owned(),
            Self::WrongProfile(told) => format!("measured {told:.2} times the truth"),
        }
    }
}

/// When the trouble begins, and when it must be over.
const BEGINS: Duration = Duration::from_secs(3);
const OVER_S: usize = 6;
const LENGTH: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    pub(crate) device: Device,
    pub(crate) load: f64,
    pub(crate) trouble: Trouble,
    /// Answers in time, from six seconds after the start on, over those of the same device without trouble; for the
    /// slowdown: of a device that was as slow from the beginning, and known to be.
    pub(crate) share: f64,
    /// Of what was run from six seconds on, late.
    pub(crate) late: f64,
    /// The same over all ten seconds.
    pub(crate) late_in_all: f64,
}

/// Simulates every trouble on a device at a load.
pub(crate) fn recoveries(device: Device, objective: Duration, load: f64) -> Vec<Recovery> {
    let rate = device.capacity(objective) * load;
    let arrivals = Pattern::Poisson.arrivals(rate, LENGTH, &mut Random::new(7));
    let serve = |told: f64, slow: &dyn Fn(Duration) -> f64, stall: bool| {
        let (mut random, mut stalled) = (Random::new(1007), !stall);
        let mut run_batch = |now: Duration, rows: usize| {
            let stalls = !stalled && now >= BEGINS;
            stalled |= stalls;
            let extra = if stalls { Duration::from_secs(2) } else { Duration::ZERO };
            device.run(rows, &mut random).mul_f64(slow(now)) + extra
        };
        run(&mut Convoy::new(device, objective, told), &mut run_batch, &arrivals, objective)
    };
    let after = |counts: &[usize]| counts.iter().skip(OVER_S).sum::<usize>() as f64;
    let steady = |_| 1.0;
    let compare = |trouble, troubled: &Outcome, reference: &Outcome| {
        let (good, late) = (after(&troubled.in_time_by_second), after(&troubled.late_by_second));
        Recovery {
            device,
            load,
            trouble,
            share: good / after(&reference.in_time_by_second),
            late: late / (good + late),
            late_in_all: troubled.late as f64 / troubled.executed() as f64,
        }
    };
    let usual = serve(1.0, &steady, false);
    let recover = |trouble| match trouble {
        Trouble::Stall => compare(trouble, &serve(1.0, &steady, true), &usual),
        Trouble::WrongProfile(told) => compare(trouble, &serve(told, &steady, false), &usual),
        Trouble::Slowdown => {
            let slower = |now| if now >= BEGINS { 1.5 } else { 1.0 };
            compare(trouble, &serve(1.0, &slower, false), &serve(1.5, &|_| 1.5, false))
        }
    };
    Trouble::ALL.into_iter().map(recover).collect()
}
