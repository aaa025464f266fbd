//! Invented arrivals, the same for every policy.

use std::f64::consts::TAU;
use std::time::Duration;

/// Numbers that look random and are the same each time (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike.
        let mut random = Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..8 {
            random.uniform();
        }
        random
    }

    /// In 0..1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of the standard normal distribution (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (TAU * self.uniform()).cos()
    }

    /// Of the exponential distribution with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.uniform()).ln() * mean
    }
}

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Independently of each other.
    Poisson,
    /// In bursts: for 100 ms in the mean at twice the rate, for 100 ms in the mean not at all.
    Bursts,
}

/// Mean duration of a burst, and of the pause after it, in seconds.
const BURST_S: f64 = 0.1;

impl Pattern {
    pub(crate) const ALL: [Self; 2] = [Self::Poisson, Self::Bursts];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poisson => "Poisson",
            Self::Bursts => "bursts",
        }
    }

    /// Arrivals at `rate` a second in the mean, for so long.
    pub(crate) fn arrivals(self, rate: f64, duration: Duration, random: &mut Random) -> Vec<Duration> {
        let end = duration.as_secs_f64();
        let mut arrivals = Vec::with_capacity((rate * end * 1.1) as usize);
        let (mut now, mut burst_ends) = (0.0, random.exponential(BURST_S));
        loop {
            now += match self {
                Self::Poisson => random.exponential(1.0 / rate),
                Self::Bursts => random.exponential(0.5 / rate),
            };
            // What is left of the gap when a burst ends passes in the next one.
            while self == Self::Bursts && now > burst_ends {
                let pause = random.exponential(BURST_S);
                now += pause;
                burst_ends += pause + random.exponential(BURST_S);
            }
            if now >= end {
                return arrivals;
            }
            arrivals.push(Duration::from_secs_f64(now));
        }
    }
}
