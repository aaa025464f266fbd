//! How long a batch takes on this device, by its size: measured while the model loads, corrected by what runs.
//!
//! The sizes keep their proportions from the measurement; what changes is one factor over all of them. Under load
//! only one batch size is ever seen, and a fit over sizes would then have nothing to stand on.

use std::collections::VecDeque;
use std::time::Duration;

use super::policy::Lane;

/// Share of the best throughput that is enough for a batch size to be preferred over a larger one. A larger batch
/// makes every request in it wait longer, and the differences below this share are noise of a few measurements.
const GOOD_ENOUGH: f64 = 0.95;
/// Weight of a new observation in the running mean.
const MEAN_WEIGHT: f64 = 0.1;
/// An observation counts at most this many times the mean, so that a single stall does not move it far.
const OUTLIER: f64 = 3.0;
/// Observations kept for the quantile.
const WINDOW: usize = 256;
/// Observations from which the quantile is used; before that, one stall would make every batch look too slow.
const ENOUGH: usize = 200;
/// What the mean is multiplied with while there are too few observations for a quantile.
const MARGIN: f64 = 1.25;

/// How long batches take on each kind of lane.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// On one of the instances, while the others are at work, too.
    pub narrow: LatencyProfile,
    /// On the whole machine, if that is to be had.
    pub wide: Option<LatencyProfile>,
}

impl Profiles {
    /// The profile of a lane; without a wide one that is the narrow one.
    pub fn of(&self, lane: Lane) -> &LatencyProfile {
        match (lane, &self.wide) {
            (Lane::Wide, Some(wide)) => wide,
            _ => &self.narrow,
        }
    }

    /// As [`of`](Self::of), to be corrected.
    pub(crate) fn of_mut(&mut self, lane: Lane) -> &mut LatencyProfile {
        match (lane, &mut self.wide) {
            (Lane::Wide, Some(wide)) => wide,
            (_, _) => &mut self.narrow,
        }
    }
}

impl From<LatencyProfile> for Profiles {
    fn from(narrow: LatencyProfile) -> Self {
        Self { narrow, wide: None }
    }
}

/// Milliseconds by batch size: what to expect, and what 99 of 100 batches stay under.
#[derive(Clone, Debug)]
pub struct LatencyProfile {
    /// Rows and seconds as measured at load, ascending by rows; at least one.
    measured: Vec<(usize, f64)>,
    /// Mean of observed over measured.
    mean: f64,
    /// The last observations, observed over measured.
    window: VecDeque<f64>,
    /// 99 % quantile of `window`, once it holds enough.
    q99: Option<f64>,
}

impl LatencyProfile {
    /// A profile from the typical duration of each measured batch size (rows, duration).
    ///
    /// # Panics
    /// Without a single measurement there is nothing to schedule by.
    pub fn new(measurements: impl IntoIterator<Item = (usize, Duration)>) -> Self {
        let mut measured: Vec<_> = measurements
            .into_iter()
            .map(|(rows, duration)| (rows.max(1), duration.as_secs_f64().max(1e-6)))
            .collect();
        assert!(!measured.is_empty(), "a latency profile needs a measurement");
        measured.sort_by_key(|&(rows, _)| rows);
        measured.dedup_by_key(|&mut (rows, _)| rows);
        Self { measured, mean: 1.0, window: VecDeque::with_capacity(WINDOW), q99: None }
    }

    /// What a batch of `rows` rows takes on average.
    pub fn expected(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.base(rows) * self.mean)
    }

    /// What 99 of 100 batches of `rows` rows stay under.
    pub fn q99(&self, rows: usize) -> Duration {
        let factor = self.q99.map_or(self.mean * MARGIN, |q99| q99.max(self.mean));
        Duration::from_secs_f64(self.base(rows) * factor)
    }

    /// Takes in that a batch of `rows` rows took `duration`.
    pub fn observe(&mut self, rows: usize, duration: Duration) {
        let ratio = duration.as_secs_f64() / self.base(rows);
        self.mean += MEAN_WEIGHT * (ratio.min(OUTLIER * self.mean) - self.mean);
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(ratio);
        if self.window.len() >= ENOUGH {
            let mut ratios: Vec<f64> = self.window.iter().copied().collect();
            let rank = (ratios.len() * 99).div_ceil(100) - 1;
            let (_, q99, _) = ratios.select_nth_unstable_by(rank, f64::total_cmp);
            self.q99 = Some(*q99);
        }
    }

    /// The smallest batch size up to `max` rows whose throughput, as measured at load, is as good as any.
    pub fn preferred_batch_size(&self, max: usize) -> usize {
        let throughput = |rows: usize| rows as f64 / self.base(rows);
        let best = (1..=max.max(1)).map(throughput).fold(0.0, f64::max);
        (1..=max.max(1)).find(|&rows| throughput(rows) >= GOOD_ENOUGH * best).unwrap_or(1)
    }

    /// The measurements this profile was made from: rows and duration, ascending.
    pub fn measurements(&self) -> impl Iterator<Item = (usize, Duration)> + '_ {
        self.measured.iter().map(|&(rows, seconds)| (rows, Duration::from_secs_f64(seconds)))
    }

    /// Seconds as measured, between two measured sizes on the line through them.
    fn base(&self, rows: usize) -> f64 {
        let after = self.measured.partition_point(|&(measured, _)| measured < rows);
        match (after.checked_sub(1).map(|before| self.measured[before]), self.measured.get(after)) {
            (None, Some(&(_, smallest))) => smallest,
            (Some((low, low_s)), Some(&(high, high_s))) => {
                low_s + (high_s - low_s) * (rows - low) as f64 / (high - low) as f64
            }
            // Beyond the largest measured size every row is taken to cost what it costs there.
            (Some((low, low_s)), None) => low_s * rows as f64 / low as f64,
            (None, None) => unreachable!("a profile holds at least one measurement"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Duration {
        Duration::from_secs_f64(value / 1e3)
    }

    fn assert_ms(actual: Duration, expected: f64) {
        assert!((actual.as_secs_f64() * 1e3 - expected).abs() < 1e-6, "{actual:?} is not {expected} ms");
    }

    #[test]
    fn sizes_between_measurements_are_interpolated() {
        let profile = LatencyProfile::new([(8, ms(16.0)), (1, ms(4.0)), (4, ms(10.0))]);
        assert_ms(profile.expected(1), 4.0);
        assert_ms(profile.expected(2), 6.0);
        assert_ms(profile.expected(6), 13.0);
        assert_ms(profile.expected(16), 32.0);
        assert_ms(LatencyProfile::new([(4, ms(8.0))]).expected(1), 8.0);
    }

    #[test]
    fn a_processor_prefers_single_rows_and_a_gpu_full_batches() {
        let cpu = LatencyProfile::new([(1, ms(8.5)), (2, ms(16.8)), (4, ms(33.0)), (8, ms(68.0))]);
        assert_eq!(cpu.preferred_batch_size(8), 1);
        let gpu = LatencyProfile::new([1, 2, 4, 8].map(|rows| (rows, ms(1.2 + 0.12 * rows as f64))));
        assert_eq!(gpu.preferred_batch_size(8), 8);
        assert_eq!(gpu.preferred_batch_size(0), 1);
    }

    #[test]
    fn a_slower_device_is_learned_from_one_batch_size() {
        let mut profile = LatencyProfile::new([(1, ms(4.0)), (8, ms(16.0))]);
        for _ in 0..300 {
            profile.observe(8, ms(24.0));
        }
        assert!((profile.expected(1).as_secs_f64() * 1e3 - 6.0).abs() < 0.01);
        assert!((profile.q99(8).as_secs_f64() * 1e3 - 24.0).abs() < 0.01);
    }

    #[test]
    fn one_stall_among_few_observations_changes_little() {
        let mut profile = LatencyProfile::new([(1, ms(1.0))]);
        for _ in 0..20 {
            profile.observe(1, ms(1.0));
        }
        profile.observe(1, ms(30.0));
        assert!(profile.expected(1) < ms(1.3));
        assert!(profile.q99(1) < ms(1.6));
    }

    #[test]
    fn the_quantile_covers_99_of_100() {
        let mut profile = LatencyProfile::new([(1, ms(1.0))]);
        for i in 0..256 {
            profile.observe(1, ms(if i % 64 == 0 { 2.0 } else { 1.0 }));
        }
        assert_ms(profile.q99(1), 2.0);
    }
}
