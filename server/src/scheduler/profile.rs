//! How long a batch takes on this device, by its size: measured while the model loads, corrected by what runs.
//!
//! The sizes keep their proportions from the measurement; what changes is one factor over all of them. Under load
//! only one batch size is ever seen, and a fit over sizes would then have nothing to stand on.
//!
//! Two things are learned of that factor: its running mean, and how far single batches lie above the mean (the tail,
//! of which the 99 % quantile is used). A stall moves the mean only a little; when several batches in a row are out
//! of the ordinary on the same side, the device has changed, and the mean is set anew.

use std::collections::VecDeque;
use std::time::Duration;

use super::policy::Lane;

/// What twice the rows must gain in throughput to be worth the longer batch. Less is noise of a few measurements,
/// and a larger batch makes every request in it wait longer.
const WORTH: f64 = 1.03;
/// Weight of a new observation in the running mean.
const MEAN_WEIGHT: f64 = 0.05;
/// An observation counts at most this many times the mean, so that a single stall does not move it far.
const OUTLIER: f64 = 1.5;
/// So many batches in a row beyond what is ordinary, and on the same side, are a device that has changed.
const STREAK: usize = 5;
/// Ordinary are observations between these multiples of the mean, or up to the quantile if that is more.
const ORDINARY: (f64, f64) = (0.75, 1.25);
/// Observations kept for the quantile: with a few hundred, two or three stalls that happen to be close to each other
/// would make every batch look as long as a stall.
const WINDOW: usize = 1024;
/// Observations from which the quantile is used; before that, one stall would make every batch look too slow.
const ENOUGH: usize = 200;
/// Observations from which it is estimated from a lower quantile, which stalls do not reach: the distance of the
/// 95 % quantile from the mean, times this (for a normal distribution 1.41, for a lognormal one with σ 0.2 1.6).
const SOME: usize = 32;
const STRETCH: f64 = 1.5;
/// The quantile is found anew after so many observations.
const REFRESH: usize = 16;
/// What the mean is multiplied with while there are too few observations even for that.
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
    /// The last few observations while all of them are out of the ordinary and on the same side: over measured, and
    /// over the mean at their time. They are no part of `tail` yet.
    streak: Vec<(f64, f64)>,
    /// The last observations, each over the mean at its time.
    tail: VecDeque<f64>,
    /// 99 % quantile of `tail`, or an estimate of it, once it holds enough.
    q99: Option<f64>,
    /// Observations until the quantile is found anew.
    refresh_in: usize,
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
        let tail = VecDeque::with_capacity(WINDOW);
        Self { measured, mean: 1.0, streak: Vec::new(), tail, q99: None, refresh_in: 0 }
    }

    /// What a batch of `rows` rows takes on average.
    pub fn expected(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.base(rows) * self.mean)
    }

    /// What a batch of `rows` rows typically took when it was measured at load.
    pub fn measured(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.base(rows))
    }

    /// What 99 of 100 batches of `rows` rows stay under.
    pub fn q99(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.base(rows) * self.mean * self.q99.unwrap_or(MARGIN))
    }

    /// How many times as long as measured at load batches take now.
    pub fn factor(&self) -> f64 {
        self.mean
    }

    /// The same measurements, of a device that is known to take `factor` times as long.
    #[must_use]
    pub fn with_factor(self, factor: f64) -> Self {
        Self { mean: factor, ..self }
    }

    /// The [factor](Self::factor), once enough ordinary batches tell it.
    pub fn learned(&self) -> Option<f64> {
        (self.tail.len() >= SOME).then_some(self.mean)
    }

    /// Takes in that a batch of `rows` rows took `duration`.
    pub fn observe(&mut self, rows: usize, duration: Duration) {
        let ratio = duration.as_secs_f64() / self.base(rows);
        let relative = ratio / self.mean;
        let slow = relative > ORDINARY.1.max(self.q99.unwrap_or(0.0));
        let fast = relative < ORDINARY.0;
        if !(slow || fast) || self.streak.last().is_some_and(|&(_, last)| (last > 1.0) != slow) {
            let strays = std::mem::take(&mut self.streak);
            strays.into_iter().for_each(|(_, relative)| self.note(relative));
        }
        if !(slow || fast) {
            self.note(relative);
        } else {
            self.streak.push((ratio, relative));
            if self.streak.len() == STREAK {
                // The device has changed, and what it did meanwhile is no tail of anything.
                self.streak.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                self.mean = self.streak[STREAK / 2].0;
                self.streak.clear();
                return;
            }
        }
        self.mean += MEAN_WEIGHT * (ratio.min(OUTLIER * self.mean) - self.mean);
    }

    /// Counts half of what is known, which may be of another time: how much slower than measured batches are, and the older half
    /// of the tail.
    pub(crate) fn fade(&mut self) {
        if self.mean > 1.0 {
            self.mean = self.mean.midpoint(1.0);
        }
        self.tail.drain(..self.tail.len().div_ceil(2));
        self.q99 = self.tail_quantile();
    }

    /// Takes an observation over the mean into the tail.
    fn note(&mut self, relative: f64) {
        if self.tail.len() == WINDOW {
            self.tail.pop_front();
        }
        self.tail.push_back(relative);
        self.refresh_in = self.refresh_in.saturating_sub(1);
        if self.refresh_in == 0 && self.tail.len() >= SOME {
            self.refresh_in = REFRESH;
            self.q99 = self.tail_quantile();
        }
    }

    /// The 99 % quantile of the tail, or an estimate of it, if it holds enough.
    fn tail_quantile(&self) -> Option<f64> {
        if self.tail.len() < SOME {
            return None;
        }
        let mut tail: Vec<f64> = self.tail.iter().copied().collect();
        let enough = tail.len() >= ENOUGH;
        let rank = (tail.len() * if enough { 99 } else { 95 }).div_ceil(100) - 1;
        let (_, quantile, _) = tail.select_nth_unstable_by(rank, f64::total_cmp);
        let above = (*quantile - 1.0).max(0.0);
        Some(1.0 + if enough { above } else { above * STRETCH })
    }

    /// The batch size up to `max` rows to aim for: as large as gains throughput, and no larger than what leaves time
    /// for a request that just missed one batch to be answered with the next, within the objective.
    pub fn preferred_batch_size(&self, max: usize, objective: Option<Duration>) -> usize {
        let in_time = |rows: usize| {
            let twice = 2.0 * self.base(rows) * self.mean * MARGIN;
            objective.is_none_or(|objective| twice <= objective.as_secs_f64())
        };
        let largest = (2..=max).take_while(|&rows| in_time(rows)).last().unwrap_or(1);
        let measured = self.measured.iter().map(|&(rows, _)| rows).take_while(|&rows| rows < largest);
        let throughput = |rows: usize| rows as f64 / self.base(rows);
        measured.chain([largest]).fold(1, |best, rows| {
            let doublings = (rows as f64 / best as f64).log2();
            let gain = throughput(rows) / throughput(best);
            if rows > best && gain >= WORTH.powf(doublings) { rows } else { best }
        })
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
        assert_eq!(cpu.preferred_batch_size(8, None), 1);
        let gpu = LatencyProfile::new([1, 2, 4, 8, 16].map(|rows| (rows, ms(1.2 + 0.12 * rows as f64))));
        assert_eq!(gpu.preferred_batch_size(8, None), 8);
        assert_eq!(gpu.preferred_batch_size(0, None), 1);
        // 2 × 1.25 × (1.2 + 0.12 × 10) = 6 ms: whoever misses one batch is in time with the next.
        assert_eq!(gpu.preferred_batch_size(16, Some(ms(6.0))), 10);
        assert_eq!(gpu.preferred_batch_size(16, Some(ms(0.1))), 1);
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
        assert!(profile.expected(1) < ms(1.03));
        assert!(profile.q99(1) < ms(1.3));
    }

    #[test]
    fn a_device_that_changes_is_noticed_within_a_few_batches() {
        let mut profile = LatencyProfile::new([(1, ms(1.0))]);
        for _ in 0..300 {
            profile.observe(1, ms(1.0));
        }
        for (duration, batches) in [(1.5, STREAK), (0.4, STREAK), (40.0, STREAK)] {
            for _ in 0..batches {
                profile.observe(1, ms(duration));
            }
            assert_ms(profile.expected(1), duration);
        }
    }

    #[test]
    fn the_quantile_covers_99_of_100() {
        let mut profile = LatencyProfile::new([(1, ms(1.0))]);
        for i in 0..1024 {
            profile.observe(1, ms(if i % 50 == 0 { 2.0 } else { 1.0 }));
        }
        let ratio = profile.q99(1).as_secs_f64() / profile.expected(1).as_secs_f64();
        assert!((1.9..=2.0).contains(&ratio), "{ratio}");
    }
}
