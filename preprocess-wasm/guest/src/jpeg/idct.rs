//! The inverse cosine transform, to 8x8 pixels or to fewer.
//!
//! 8x8 is the algorithm of Arai, Agui and Nakajima ("A fast DCT-SQ scheme for images", 1988) in single precision, whose
//! factors of scale lie in the table that coefficients are multiplied with anyway. Fewer pixels are the transform of
//! that length of the lowest coefficients: the image scaled in the frequency domain.
//!
//! Blocks are stored transposed (a row is a horizontal frequency), so that one transposition in between is enough.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x4, i32x4, u8x16};

/// Coefficients of a block, dequantised and scaled by [`scale`], transposed.
pub(super) type Block = [f32; 64];

/// Natural positions, transposed, of coefficients in the order of the file, and beyond the last for runs too long.
pub(super) const ORDER: [u8; 128] = {
    // ITU T.81, figure 5: row by row through the natural positions.
    const ZIGZAG: [u8; 64] = [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
        6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38,
        31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ];
    let mut order = [63; 128];
    let mut at = 0;
    while at < 64 {
        order[at] = (ZIGZAG[at] % 8) * 8 + ZIGZAG[at] / 8;
        at += 1;
    }
    order
};

/// Last coefficient, in the order of the file, that a transform to `size` pixels uses.
pub(super) const fn last_used(size: usize) -> usize {
    match size {
        1 => 0,
        2 => 4,
        4 => 24,
        _ => 63,
    }
}

/// Coefficients before this one lie in the upper left 4x4.
pub(super) const LOW: usize = 10;

/// What the coefficient at a natural position (transposed or not) is multiplied with for a transform to `size` pixels: zero if
/// it has no part in that.
pub(super) fn scale(size: usize, position: usize) -> f32 {
    const HALF_SQRT_2: f64 = std::f64::consts::FRAC_1_SQRT_2;
    let along = |frequency: usize| match size {
        1 | 2 if frequency < size => 1.0,
        1 | 2 => 0.0,
        4 => [0.5, HALF_SQRT_2, 0.5, HALF_SQRT_2].get(frequency).copied().unwrap_or(0.0),
        // cos(k pi / 16) * sqrt(2), the first and the last ones being 1.
        _ => [
            1.0,
            1.387_039_845_322_148,
            1.306_562_964_876_377,
            1.175_875_602_419_359,
            1.0,
            0.785_694_958_387_102,
            0.541_196_100_146_197,
            0.275_899_379_282_943,
        ][frequency],
    };
    let both = along(position / 8) * along(position % 8);
    (if size == 4 { both / 2.0 } else { both / 8.0 }) as f32
}

/// Writes the 8x8 pixels of a block to `out`, whose rows are `stride` bytes apart. If `low`, only coefficients of the
/// upper left 4x4 are not zero.
#[inline(always)]
pub(super) fn to_8x8<S: Simd>(simd: S, block: &Block, low: bool, out: &mut [u8], stride: usize) {
    let row = |at: usize| f32x4::from_slice(simd, &block[at * 4..at * 4 + 4]);
    let zero = f32x4::splat(simd, 0.0);
    // Over x: lanes are vertical frequencies, 0..4 in `a`, 4..8 in `b`. Then transposed: rows are vertical
    // frequencies, lanes are x, 0..4 on the left, 4..8 on the right.
    let (left, right) = if low {
        let a = transform(std::array::from_fn(|u| if u < 4 { row(2 * u) } else { zero }));
        let [l, r] = halves(a);
        let with_zeros = |v: [f32x4<S>; 4]| [v[0], v[1], v[2], v[3], zero, zero, zero, zero];
        (with_zeros(transpose(l)), with_zeros(transpose(r)))
    } else {
        let a = transform(std::array::from_fn(|u| row(2 * u)));
        let b = transform(std::array::from_fn(|u| row(2 * u + 1)));
        let ([al, ar], [bl, br]) = (halves(a), halves(b));
        let join = |v: [f32x4<S>; 4], w: [f32x4<S>; 4]| [v[0], v[1], v[2], v[3], w[0], w[1], w[2], w[3]];
        (join(transpose(al), transpose(bl)), join(transpose(ar), transpose(br)))
    };
    let (left, right) = (transform(left), transform(right));
    for y in (0..8).step_by(2) {
        let pixels = pixels(simd, [left[y], right[y], left[y + 1], right[y + 1]]);
        let (upper, lower) = pixels.split_at(8);
        out[y * stride..y * stride + 8].copy_from_slice(upper);
        out[(y + 1) * stride..(y + 1) * stride + 8].copy_from_slice(lower);
    }
}

/// Writes the 4x4 pixels of a block that is scaled to a half.
#[inline(always)]
pub(super) fn to_4x4<S: Simd>(simd: S, block: &Block, out: &mut [u8], stride: usize) {
    let rows = std::array::from_fn(|u| f32x4::from_slice(simd, &block[u * 8..u * 8 + 4]));
    let pixels = pixels(simd, transform_4(transpose(transform_4(rows))));
    for (y, row) in pixels.chunks_exact(4).enumerate() {
        out[y * stride..y * stride + 4].copy_from_slice(row);
    }
}

/// Writes the 2x2 pixels of a block that is scaled to a quarter.
#[inline(always)]
pub(super) fn to_2x2(block: &Block, out: &mut [u8], stride: usize) {
    let (dc, vertical, horizontal, both) = (block[0], block[1], block[8], block[9]);
    out[0] = pixel(dc + horizontal + vertical + both);
    out[1] = pixel(dc - horizontal + vertical - both);
    out[stride] = pixel(dc + horizontal - vertical - both);
    out[stride + 1] = pixel(dc - horizontal - vertical + both);
}

/// A pixel of a block of one colour.
#[inline(always)]
pub(super) fn pixel(value: f32) -> u8 {
    (rounded(value).clamp(-128, 127) + 128) as u8
}

/// Added to a float, it leaves the nearest whole number in the lowest bits: 1.5 * 2^23.
const TO_WHOLE: f32 = 12_582_912.0;

#[inline(always)]
fn rounded(value: f32) -> i32 {
    ((value + TO_WHOLE).to_bits() as i32).wrapping_sub(TO_WHOLE.to_bits() as i32)
}

#[inline(always)]
fn pixels<S: Simd>(simd: S, values: [f32x4<S>; 4]) -> [u8; 16] {
    let whole = |value: f32x4<S>| {
        (value + TO_WHOLE).bitcast::<i32x4<S>>() - i32x4::splat(simd, TO_WHOLE.to_bits() as i32)
    };
    let upper = whole(values[0]).saturating_narrow(whole(values[1]));
    let lower = whole(values[2]).saturating_narrow(whole(values[3]));
    // Around zero, signed bytes saturate where pixels do.
    let bytes: u8x16<S> = upper.saturating_narrow(lower).bitcast();
    (bytes ^ u8x16::splat(simd, 0x80)).to_array()
}

#[inline(always)]
fn halves<S: Simd>(v: [f32x4<S>; 8]) -> [[f32x4<S>; 4]; 2] {
    [[v[0], v[1], v[2], v[3]], [v[4], v[5], v[6], v[7]]]
}

#[inline(always)]
fn transpose<S: Simd>([a, b, c, d]: [f32x4<S>; 4]) -> [f32x4<S>; 4] {
    let (ac_low, ac_high) = (a.zip_low(c), a.zip_high(c));
    let (bd_low, bd_high) = (b.zip_low(d), b.zip_high(d));
    [ac_low.zip_low(bd_low), ac_low.zip_high(bd_low), ac_high.zip_low(bd_high), ac_high.zip_high(bd_high)]
}

/// Eight values from eight scaled coefficients, in four lanes.
#[inline(always)]
fn transform<S: Simd>(v: [f32x4<S>; 8]) -> [f32x4<S>; 8] {
    const SQRT_2: f32 = std::f32::consts::SQRT_2;
    let (sum_04, difference_04) = (v[0] + v[4], v[0] - v[4]);
    let sum_26 = v[2] + v[6];
    let rotated_26 = (v[2] - v[6]) * SQRT_2 - sum_26;
    let even = [sum_04 + sum_26, difference_04 + rotated_26, difference_04 - rotated_26, sum_04 - sum_26];

    let (sum_53, difference_53) = (v[5] + v[3], v[5] - v[3]);
    let (sum_17, difference_17) = (v[1] + v[7], v[1] - v[7]);
    let odd_0 = sum_17 + sum_53;
    let common = (difference_53 + difference_17) * 1.847_759_1; // 2 cos(pi / 8)
    let odd_1 = common - difference_53 * 2.613_126 - odd_0; // 2 (cos(pi / 8) + cos(3 pi / 8))
    let odd_2 = (sum_17 - sum_53) * SQRT_2 - odd_1;
    let odd_3 = common - difference_17 * 1.082_392_2 - odd_2; // 2 (cos(pi / 8) - cos(3 pi / 8))
    [
        even[0] + odd_0,
        even[1] + odd_1,
        even[2] + odd_2,
        even[3] + odd_3,
        even[3] - odd_3,
        even[2] - odd_2,
        even[1] - odd_1,
        even[0] - odd_0,
    ]
}

/// Four values from four scaled coefficients.
#[inline(always)]
fn transform_4<S: Simd>(v: [f32x4<S>; 4]) -> [f32x4<S>; 4] {
    const COS: f32 = 0.923_879_5; // of pi / 8
    const SIN: f32 = 0.382_683_43;
    let (sum, difference) = (v[0] + v[2], v[0] - v[2]);
    let (outer, inner) = (v[1] * COS + v[3] * SIN, v[1] * SIN - v[3] * COS);
    [sum + outer, difference + inner, difference - inner, sum - outer]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use fearless_simd::{Level, dispatch};

    use super::*;

    /// Coefficients at natural positions, of a size that photos have.
    fn coefficients(seed: u32, count: usize) -> [f32; 64] {
        let mut natural = [0.0; 64];
        let mut state = seed;
        for position in ORDER[..count].iter().map(|&position| usize::from(position)) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            natural[(position % 8) * 8 + position / 8] = f32::from((state >> 24) as u8) - 128.0;
        }
        natural
    }

    /// ITU T.81, A.3.3, for any size: the lowest coefficients of a block of 8x8.
    fn by_definition(natural: &[f32; 64], size: usize) -> Vec<f64> {
        let n = size as f64;
        let basis = |x: usize, u: usize| {
            let norm = if u == 0 { (1.0 / n).sqrt() } else { (2.0 / n).sqrt() };
            norm * ((2 * x + 1) as f64 * u as f64 * PI / (2.0 * n)).cos()
        };
        let value = |x: usize, y: usize| -> f64 {
            let terms = (0..size).flat_map(|v| (0..size).map(move |u| (u, v)));
            terms.map(|(u, v)| f64::from(natural[v * 8 + u]) * basis(x, u) * basis(y, v)).sum::<f64>() * n
                / 8.0
        };
        (0..size * size).map(|at| (value(at % size, at / size) + 128.0).clamp(0.0, 255.0)).collect()
    }

    fn by_us(level: Level, natural: &[f32; 64], size: usize, low: bool) -> Vec<u8> {
        let mut block = [0.0; 64];
        for v in 0..8 {
            for u in 0..8 {
                block[u * 8 + v] = natural[v * 8 + u] * scale(size, u * 8 + v);
            }
        }
        let mut out = vec![0; size * size];
        match size {
            1 => out[0] = pixel(block[0]),
            2 => to_2x2(&block, &mut out, 2),
            4 => dispatch!(level, simd => to_4x4(simd, &block, &mut out, 4)),
            _ => dispatch!(level, simd => to_8x8(simd, &block, low, &mut out, 8)),
        }
        out
    }

    #[test]
    fn it_is_the_definition_rounded_and_simd_is_scalar() {
        for seed in 0..50 {
            for (size, count) in [(1, 64), (2, 64), (4, 64), (8, 64), (8, LOW), (8, 1)] {
                let natural = coefficients(seed, count);
                let low = count <= LOW;
                let found = by_us(Level::new(), &natural, size, low);
                for (found, expected) in found.iter().zip(by_definition(&natural, size)) {
                    assert!((f64::from(*found) - expected).abs() < 0.51, "{size}: {found} for {expected}");
                }
                assert_eq!(found, by_us(Level::fallback(), &natural, size, low), "{size}");
                if low && size == 8 {
                    assert_eq!(found, by_us(Level::new(), &natural, size, false));
                }
            }
        }
    }

    #[test]
    fn the_used_coefficients_lie_in_the_corner() {
        for size in [1, 2, 4, 8] {
            let is_used = |at: &usize| {
                let position = usize::from(ORDER[*at]);
                position / 8 < size && position % 8 < size
            };
            assert_eq!((0..64).filter(is_used).max(), Some(last_used(size)));
        }
        assert!((0..LOW).all(|at| ORDER[at] / 8 < 4 && ORDER[at] % 8 < 4));
    }

    #[test]
    fn absurd_coefficients_do_no_harm() {
        let natural = [3e9; 64];
        for size in [1, 2, 4, 8] {
            assert_eq!(
                by_us(Level::new(), &natural, size, false),
                by_us(Level::fallback(), &natural, size, false)
            );
        }
    }
}
