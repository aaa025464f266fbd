//! Invented devices: how long a batch takes.

use std::time::Duration;

use super::traffic::Random;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// `1.2 + 0.12 b` ms: an accelerator, on which batching pays.
    Gpu,
    /// `7.8 b` ms: a processor, on which it does not.
    Cpu,
    /// The first with lognormal noise (σ 0.2), and one batch in 500 stalls for 30 ms.
    Noisy,
}

impl Device {
    pub(crate) const ALL: [Self; 3] = [Self::Gpu, Self::Cpu, Self::Noisy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gpu => "1.2 + 0.12 b ms",
            Self::Cpu => "7.8 b ms",
            Self::Noisy => "1.2 + 0.12 b ms, noise and stalls",
        }
    }

    /// What a batch of so many rows takes without noise: the median.
    pub(crate) fn typical(self, rows: usize) -> Duration {
        let ms = match self {
            Self::Gpu | Self::Noisy => 1.2 + 0.12 * rows as f64,
            Self::Cpu => 7.8 * rows as f64,
        };
        Duration::from_secs_f64(ms / 1e3)
    }

    /// What this batch takes.
    pub(crate) fn run(self, rows: usize, random: &mut Random) -> Duration {
        let typical = self.typical(rows);
        if self != Self::Noisy {
            return typical;
        }
        let stall = if random.uniform() < 1.0 / 500.0 { Duration::from_millis(30) } else { Duration::ZERO };
        typical.mul_f64((0.2 * random.normal()).exp()) + stall
    }

    /// The batch of highest throughput among those of which two fit into the objective: who just missed one batch
    /// is in time with the next.
    pub(crate) fn best_batch(self, objective: Duration) -> usize {
        let throughput = |rows: usize| rows as f64 / self.typical(rows).as_secs_f64();
        let fits = (1..=super::MAX_BATCH).filter(|&rows| rows == 1 || 2 * self.typical(rows) <= objective);
        fits.fold(1, |best, rows| if throughput(rows) > throughput(best) * 1.000_001 { rows } else { best })
    }

    /// Rows a second that it can do within the objective.
    pub(crate) fn capacity(self, objective: Duration) -> f64 {
        let rows = self.best_batch(objective);
        rows as f64 / self.typical(rows).as_secs_f64()
    }
}
