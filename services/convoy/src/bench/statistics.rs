//! Quantiles, medians, and the random numbers of arrivals.

use serde::Serialize;
use std::time::Duration;

/// What a set of latencies looks like, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) mean_ms: f64,
    pub(super) max_ms: f64,
}

impl Latency {
    /// Of `durations`, in any order; all zero for none.
    pub(super) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let sum: Duration = durations.iter().sum();
        let count = durations.len().max(1) as f64;
        Self {
            p50_ms: milliseconds(quantile(&durations, 0.5)),
            p99_ms: milliseconds(quantile(&durations, 0.99)),
            mean_ms: milliseconds(sum) / count,
            max_ms: milliseconds(durations.last().copied().unwrap_or_default()),
        }
    }
}

/// The smallest of `sorted` that at least a share `q` of them does not exceed (the nearest rank); zero for none.
pub(super) fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// The middle of `values`, between the two middle ones if their number is even; zero for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.as_slice()) {
        (_, []) => 0.0,
        (1, values) => values[middle],
        (_, values) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Exponentially distributed gaps: the arrivals of a Poisson process. The same for the same seed.
///
/// The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    state: u64,
    mean_gap: f64,
}

impl Arrivals {
    /// `rate` arrivals a second on average.
    pub(super) fn new(rate: f64, seed: u64) -> Self {
        Self { state: seed, mean_gap: 1.0 / rate }
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // In (0, 1], so that its logarithm is finite.
        let uniform = ((self.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Some(Duration::from_secs_f64(-uniform.ln() * self.mean_gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&sorted, 0.0), Duration::from_millis(1));
        assert_eq!(quantile(&sorted[..1], 0.99), Duration::from_millis(1));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_summary_does_not_depend_on_the_order() {
        let shuffled = [3, 1, 2, 10].map(Duration::from_millis).to_vec();
        let latency = Latency::of(shuffled);
        assert_eq!(latency, Latency { p50_ms: 2.0, p99_ms: 10.0, mean_ms: 4.0, max_ms: 10.0 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn arrivals_have_their_rate_and_are_memoryless() {
        let gaps: Vec<f64> = Arrivals::new(200.0, 7).take(100_000).map(|gap| gap.as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.005).abs() < 0.000_1, "{mean}");
        // Of an exponential distribution 1/e lie beyond its mean.
        let beyond = gaps.iter().filter(|&&gap| gap > 0.005).count() as f64 / gaps.len() as f64;
        assert!((beyond - (-1.0_f64).exp()).abs() < 0.01, "{beyond}");
        let again: Vec<Duration> = Arrivals::new(200.0, 7).take(3).collect();
        assert_eq!(again, Arrivals::new(200.0, 7).take(3).collect::<Vec<_>>());
    }
}
