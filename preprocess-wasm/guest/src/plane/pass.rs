//! The two passes over rows, in vectors.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, i16x8, i32x4, u8x16};

use super::axis::{Axis, WEIGHT_BITS};

/// Samples of a row that are made at a time.
pub(crate) const LANES: usize = 16;
/// Weights of a window that are multiplied at a time.
pub(super) const TAPS: usize = 8;

/// Bits after the point between the passes.
const BETWEEN_BITS: u32 = 6;
const FIRST_SHIFT: u32 = WEIGHT_BITS - BETWEEN_BITS;
const SECOND_SHIFT: u32 = WEIGHT_BITS + BETWEEN_BITS;

/// Brings a row to the target's width.
#[inline(always)]
pub(super) fn horizontal<S: Simd>(simd: S, row: &[u8], columns: &Axis, out: &mut [i16]) {
    // For windows of usual widths there is no loop over their weights.
    match columns.taps() {
        8 => horizontal_of::<S, 1>(simd, row, columns, out),
        16 => horizontal_of::<S, 2>(simd, row, columns, out),
        24 => horizontal_of::<S, 3>(simd, row, columns, out),
        _ => horizontal_of::<S, 0>(simd, row, columns, out),
    }
}

/// With windows of so many times [`TAPS`] weights; 0: of any number.
#[inline(always)]
fn horizontal_of<S: Simd, const TIMES: usize>(simd: S, row: &[u8], columns: &Axis, out: &mut [i16]) {
    let (starts, weights) = columns.windows();
    let taps = if TIMES == 0 { columns.taps() } else { TIMES * TAPS };
    let eights = starts.as_chunks::<8>().0.iter().zip(weights.chunks_exact(8 * taps));
    for ((starts, weights), out) in eights.zip(out.as_chunks_mut::<8>().0) {
        let (left, right) = weights.split_at(4 * taps);
        let left = four::<S, TIMES>(simd, row, [starts[0], starts[1], starts[2], starts[3]], left);
        let right = four::<S, TIMES>(simd, row, [starts[4], starts[5], starts[6], starts[7]], right);
        left.saturating_narrow(right).store_slice(out);
    }
}

/// Four windows' samples.
#[inline(always)]
fn four<S: Simd, const TIMES: usize>(
    simd: S,
    row: &[u8],
    [a, b, c, d]: [usize; 4],
    weights: &[i16],
) -> i32x4<S> {
    let taps = if TIMES == 0 { weights.len() / 4 } else { TIMES * TAPS };
    let half = i32x4::splat(simd, 1 << (FIRST_SHIFT - 1));
    let a = window::<S, TIMES>(simd, &row[a..a + taps + 8], &weights[..taps]);
    let b = window::<S, TIMES>(simd, &row[b..b + taps + 8], &weights[taps..2 * taps]);
    let c = window::<S, TIMES>(simd, &row[c..c + taps + 8], &weights[2 * taps..3 * taps]);
    let d = window::<S, TIMES>(simd, &row[d..d + taps + 8], &weights[3 * taps..4 * taps]);
    let ab = a.unzip_low(b) + a.unzip_high(b);
    let cd = c.unzip_low(d) + c.unzip_high(d);
    (ab.unzip_low(cd) + ab.unzip_high(cd) + half) >> FIRST_SHIFT
}

/// The sum of the products of a window, in four parts.
#[inline(always)]
fn window<S: Simd, const TIMES: usize>(simd: S, samples: &[u8], weights: &[i16]) -> i32x4<S> {
    let mut sum = product(simd, samples, weights, 0);
    if TIMES == 0 {
        for from in (TAPS..weights.len()).step_by(TAPS) {
            sum += product(simd, samples, weights, from);
        }
    }
    if TIMES > 1 {
        sum += product(simd, samples, weights, TAPS);
    }
    if TIMES > 2 {
        sum += product(simd, samples, weights, 2 * TAPS);
    }
    sum
}

#[inline(always)]
fn product<S: Simd>(simd: S, samples: &[u8], weights: &[i16], from: usize) -> i32x4<S> {
    let (samples, _) = u8x16::from_slice(simd, &samples[from..from + 16]).widen();
    let weights = i16x8::from_slice(simd, &weights[from..from + TAPS]);
    samples.bitcast::<i16x8<S>>().pairwise_dot_product(weights)
}

/// The ring of rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) ring: &'a [i16],
    /// How many there are: a power of two.
    pub(super) count: usize,
    pub(super) stride: usize,
}

/// Makes a row of the target of the rows from `start` on, with these weights.
#[inline(always)]
pub(super) fn vertical<S: Simd>(simd: S, rows: Rows<'_>, window: (usize, &[i16]), out: &mut [u8]) {
    // For windows of usual heights there is no loop over their weights.
    match window.1.len().div_ceil(2) {
        1 => vertical_of::<S, 1>(simd, rows, window, out),
        2 => vertical_of::<S, 2>(simd, rows, window, out),
        3 => vertical_of::<S, 3>(simd, rows, window, out),
        4 => vertical_of::<S, 4>(simd, rows, window, out),
        5 => vertical_of::<S, 5>(simd, rows, window, out),
        6 => vertical_of::<S, 6>(simd, rows, window, out),
        _ => vertical_of_many(simd, rows, window, out),
    }
}

/// Two rows and their weights, side by side. The last one alone has a weight of zero for its neighbour.
#[inline(always)]
fn pair<'a, S: Simd>(
    simd: S,
    rows: Rows<'a>,
    (start, weights): (usize, &[i16]),
    at: usize,
) -> (&'a [i16], &'a [i16], i16x8<S>) {
    let row = |tap: usize| &rows.ring[((start + tap) & (rows.count - 1)) * rows.stride..][..rows.stride];
    let first = row(2 * at);
    let (lower, second) = match weights.get(2 * at + 1) {
        Some(&second) => (row(2 * at + 1), second),
        None => (first, 0),
    };
    let both = i32::from(second) << 16 | i32::from(weights[2 * at] as u16);
    (first, lower, i32x4::splat(simd, both).bitcast())
}

/// Adds two rows' part of [`LANES`] samples.
#[inline(always)]
fn add<S: Simd>(
    simd: S,
    sums: &mut [i32x4<S>; 4],
    (upper, lower, weights): (&[i16], &[i16], i16x8<S>),
    at: usize,
) {
    let (upper, lower) = (&upper[at..at + LANES], &lower[at..at + LANES]);
    for half in 0..2 {
        let upper = i16x8::from_slice(simd, &upper[half * 8..half * 8 + 8]);
        let lower = i16x8::from_slice(simd, &lower[half * 8..half * 8 + 8]);
        sums[2 * half] += upper.zip_low(lower).pairwise_dot_product(weights);
        sums[2 * half + 1] += upper.zip_high(lower).pairwise_dot_product(weights);
    }
}

/// Pixels around zero: then signed bytes saturate where pixels do.
const BIAS: i32 = (1 << (SECOND_SHIFT - 1)) - (128 << SECOND_SHIFT);

#[inline(always)]
fn store<S: Simd>(simd: S, sums: [i32x4<S>; 4], out: &mut [u8]) {
    let [a, b, c, d] = sums.map(|sum| sum >> SECOND_SHIFT);
    let bytes: u8x16<S> = a.saturating_narrow(b).saturating_narrow(c.saturating_narrow(d)).bitcast();
    (bytes ^ u8x16::splat(simd, 0x80)).store_slice(out);
}

#[inline(always)]
fn vertical_of<S: Simd, const PAIRS: usize>(
    simd: S,
    rows: Rows<'_>,
    window: (usize, &[i16]),
    out: &mut [u8],
) {
    let pairs: [_; PAIRS] = std::array::from_fn(|at| pair(simd, rows, window, at));
    for at in (0..rows.stride).step_by(LANES) {
        let mut sums = [i32x4::splat(simd, BIAS); 4];
        for pair in pairs {
            add(simd, &mut sums, pair, at);
        }
        store(simd, sums, &mut out[at..at + LANES]);
    }
}

#[inline(always)]
fn vertical_of_many<S: Simd>(simd: S, rows: Rows<'_>, window: (usize, &[i16]), out: &mut [u8]) {
    for at in (0..rows.stride).step_by(LANES) {
        let mut sums = [i32x4::splat(simd, BIAS); 4];
        for number in 0..window.1.len().div_ceil(2) {
            add(simd, &mut sums, pair(simd, rows, window, number), at);
        }
        store(simd, sums, &mut out[at..at + LANES]);
    }
}
