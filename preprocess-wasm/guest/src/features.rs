//! Statistics of an image.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, i16x8, i32x4, u8x16, u32x4};

/// Statistics over all bytes of an RGB image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Mean, 0..=255.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Smallest byte.
    pub min: u8,
    /// Largest byte.
    pub max: u8,
}

impl Features {
    /// Measures all bytes; of none, all statistics are zero.
    ///
    /// The sums are integers, so the result does not depend on the order of the bytes. They fit: a target of
    /// 4096x4096 has 5e7 bytes, whose squares sum up to 3.3e12 at most.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self { mean: 0.0, std: 0.0, min: 0, max: 0 };
        }
        let (sum, squares, min, max) = dispatch!(Level::new(), simd => measure(simd, bytes));
        let count = bytes.len() as f64;
        let mean = sum as f64 / count;
        let variance = (squares as f64 / count - mean * mean).max(0.0);
        Self { mean, std: variance.sqrt(), min, max }
    }
}

/// Sum, sum of the squares, smallest and largest of the bytes.
#[inline(always)]
fn measure<S: Simd>(simd: S, bytes: &[u8]) -> (u64, u64, u8, u8) {
    let (mut sum, mut squares) = (0_u64, 0_u64);
    let (mut min, mut max) = (u8x16::splat(simd, u8::MAX), u8x16::splat(simd, u8::MIN));
    let (turns, rest) = bytes.as_chunks::<64>();
    // The sums of so many turns fit in their lanes: 256 times eight bytes, and 256 times eight squares.
    for turns in turns.chunks(256) {
        let zero = u32x4::splat(simd, 0);
        let (mut lane_sums, mut lane_squares) = (zero, i32x4::splat(simd, 0));
        for turn in turns {
            for at in [0, 16, 32, 48] {
                let bytes = u8x16::from_slice(simd, &turn[at..at + 16]);
                (min, max) = (min.min(bytes), max.max(bytes));
                let (low, high) = bytes.widen();
                lane_sums += (low + high).pairwise_widening_add();
                let (low, high): (i16x8<S>, i16x8<S>) = (low.bitcast(), high.bitcast());
                lane_squares += low.pairwise_dot_product(low) + high.pairwise_dot_product(high);
            }
        }
        sum += lane_sums.to_array().into_iter().map(u64::from).sum::<u64>();
        squares += lane_squares.to_array().into_iter().map(|square| square as u64).sum::<u64>();
    }
    let (mut min, mut max) = (
        min.to_array().into_iter().fold(u8::MAX, u8::min),
        max.to_array().into_iter().fold(u8::MIN, u8::max),
    );
    for &byte in rest {
        sum += u64::from(byte);
        squares += u64::from(byte) * u64::from(byte);
        (min, max) = (min.min(byte), max.max(byte));
    }
    (sum, squares, min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_statistics() {
        let features = Features::of(&[2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!(features, Features { mean: 5.0, std: 2.0, min: 2, max: 9 });
    }

    #[test]
    fn one_colour_has_no_deviation() {
        let features = Features::of(&[200; 10_000]);
        assert_eq!(features, Features { mean: 200.0, std: 0.0, min: 200, max: 200 });
    }

    #[test]
    fn the_brightest_largest_image_does_not_overflow() {
        let mut bytes = vec![255; 4096 * 4096 * 3];
        bytes[0] = 0;
        let features = Features::of(&bytes);
        assert!(features.mean > 254.9 && features.max == 255 && features.min == 0);
        assert!(features.std > 0.03 && features.std < 0.04, "{features:?}");
    }

    #[test]
    fn nothing_measures_zero() {
        assert_eq!(Features::of(&[]).mean, 0.0);
    }
}
