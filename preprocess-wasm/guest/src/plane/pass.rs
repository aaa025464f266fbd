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
    let (starts, weights) = columns.windows();
    let taps = columns.taps();
    let half = i32x4::splat(simd, 1 << (FIRST_SHIFT - 1));
    let eights = starts.chunks_exact(8).zip(weights.chunks_exact(8 * taps));
    for ((starts, weights), out) in eights.zip(out.chunks_exact_mut(8)) {
        let four = |first: usize| {
            let sums: [i32x4<S>; 4] = std::array::from_fn(|at| {
                let at = first + at;
                let weights = &weights[at * taps..(at + 1) * taps];
                let mut sum = i32x4::splat(simd, 0);
                let mut from = starts[at];
                for weights in weights.chunks_exact(TAPS) {
                    let (samples, _) = u8x16::from_slice(simd, &row[from..from + 16]).widen();
                    let weights = i16x8::from_slice(simd, weights);
                    sum += samples.bitcast::<i16x8<S>>().pairwise_dot_product(weights);
                    from += TAPS;
                }
                sum
            });
            let ab = sums[0].unzip_low(sums[1]) + sums[0].unzip_high(sums[1]);
            let cd = sums[2].unzip_low(sums[3]) + sums[2].unzip_high(sums[3]);
            (ab.unzip_low(cd) + ab.unzip_high(cd) + half) >> FIRST_SHIFT
        };
        four(0).saturating_narrow(four(4)).store_slice(out);
    }
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
pub(super) fn vertical<S: Simd>(simd: S, rows: Rows<'_>, (start, weights): (usize, &[i16]), out: &mut [u8]) {
    let stride = rows.stride;
    // Pixels around zero: then signed bytes saturate where pixels do.
    let bias = (1 << (SECOND_SHIFT - 1)) - (128 << SECOND_SHIFT);
    let row = |tap: usize| &rows.ring[((start + tap) & (rows.count - 1)) * stride..][..stride];
    let pairs = weights.chunks(2).enumerate();
    for at in (0..stride).step_by(LANES) {
        let mut sums = [i32x4::splat(simd, bias); 4];
        for (pair, weights) in pairs.clone() {
            let upper = &row(2 * pair)[at..at + LANES];
            // The last one alone has a weight of zero for its neighbour.
            let (lower, second) = match weights.get(1) {
                Some(&second) => (&row(2 * pair + 1)[at..at + LANES], second),
                None => (upper, 0),
            };
            let both = i32::from(second) << 16 | i32::from(weights[0] as u16);
            let both: i16x8<S> = i32x4::splat(simd, both).bitcast();
            for half in 0..2 {
                let upper = i16x8::from_slice(simd, &upper[half * 8..half * 8 + 8]);
                let lower = i16x8::from_slice(simd, &lower[half * 8..half * 8 + 8]);
                sums[2 * half] += upper.zip_low(lower).pairwise_dot_product(both);
                sums[2 * half + 1] += upper.zip_high(lower).pairwise_dot_product(both);
            }
        }
        let [a, b, c, d] = sums.map(|sum| sum >> SECOND_SHIFT);
        let bytes: u8x16<S> = a.saturating_narrow(b).saturating_narrow(c.saturating_narrow(d)).bitcast();
        (bytes ^ u8x16::splat(simd, 0x80)).store_slice(&mut out[at..at + LANES]);
    }
}
