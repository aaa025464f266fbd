//! Between planes and interleaved pixels of three bytes, sixteen pixels at a time.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, i16x8, i32x4, u8x16};

/// For each of three vectors of interleaved pixels and each plane: which of the plane's bytes lie where in it. 255: none.
const JOINED: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[255; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at / 16][at % 3][at % 16] = (at / 3) as u8;
        at += 1;
    }
    places
};

/// For each plane and each of three vectors of interleaved pixels: which of the vector's bytes lie where in the plane.
const SPLIT: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[255; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at % 3][at / 16][at / 3] = (at % 16) as u8;
        at += 1;
    }
    places
};

/// Takes bytes from three vectors each to three others, by tables of places.
#[inline(always)]
fn sort<S: Simd>(simd: S, from: [u8x16<S>; 3], places: &[[[u8; 16]; 3]; 3]) -> [u8x16<S>; 3] {
    std::array::from_fn(|to| {
        let part = |at: usize| from[at].swizzle_dyn_precise(u8x16::from_slice(simd, &places[to][at]));
        part(0) | part(1) | part(2)
    })
}

/// Splits pixels into their planes.
#[inline(always)]
pub(super) fn split<S: Simd>(simd: S, pixels: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    let (turns, rest) = pixels.as_chunks::<48>();
    let parts = red.as_chunks_mut::<16>().0.iter_mut().zip(green.as_chunks_mut::<16>().0);
    for (turn, ((red, green), blue)) in turns.iter().zip(parts.zip(blue.as_chunks_mut::<16>().0)) {
        let load = |at: usize| u8x16::from_slice(simd, &turn[at * 16..at * 16 + 16]);
        let [r, g, b] = sort(simd, [load(0), load(1), load(2)], &SPLIT);
        r.store_slice(red);
        g.store_slice(green);
        b.store_slice(blue);
    }
    let done = turns.len() * 16;
    for (at, pixel) in rest.as_chunks::<3>().0.iter().enumerate() {
        [red[done + at], green[done + at], blue[done + at]] = *pixel;
    }
}

/// Joins planes to pixels.
#[inline(always)]
pub(super) fn join<S: Simd>(simd: S, planes: [&[u8]; 3], out: &mut [u8]) {
    by_sixteen(simd, planes, out, |planes| planes);
}

/// Joins planes of Y, Cb and Cr to pixels of red, green and blue.
///
/// The conversion of JFIF, in whole numbers with 16 bits after the point, as libjpeg has it. Its factors are more than 16
/// bits have, so whole multiples of the samples are taken out of them.
#[inline(always)]
pub(super) fn join_ycc<S: Simd>(simd: S, planes: [&[u8]; 3], out: &mut [u8]) {
    let middle = i16x8::splat(simd, 128);
    let half = i32x4::splat(simd, 0x8000);
    // What the samples of Cb and Cr are multiplied with, side by side.
    let factors = |cb: i16, cr: i16| -> i16x8<S> {
        i32x4::splat(simd, i32::from(cr) << 16 | i32::from(cb as u16)).bitcast()
    };
    let (for_red, for_green, for_blue) = (factors(0, 26_345), factors(-22_554, 18_734), factors(-14_942, 0));
    by_sixteen(simd, planes, out, |[y, cb, cr]| {
        let wide = |samples: u8x16<S>| -> [i16x8<S>; 2] {
            let (low, high) = samples.widen();
            [low.bitcast(), high.bitcast()]
        };
        let (y, cb, cr) = (wide(y), wide(cb), wide(cr));
        // Around zero, signed bytes saturate where pixels do.
        let eight = |at: usize| -> [i16x8<S>; 3] {
            let (y, cb, cr) = (y[at] - middle, cb[at] - middle, cr[at] - middle);
            let fraction = |factors: i16x8<S>| -> i16x8<S> {
                let low = (cb.zip_low(cr).pairwise_dot_product(factors) + half) >> 16;
                let high = (cb.zip_high(cr).pairwise_dot_product(factors) + half) >> 16;
                low.saturating_narrow(high)
            };
            [y + cr + fraction(for_red), y - cr + fraction(for_green), y + cb + cb + fraction(for_blue)]
        };
        let (low, high) = (eight(0), eight(1));
        std::array::from_fn(|at| {
            let bytes: u8x16<S> = low[at].saturating_narrow(high[at]).bitcast();
            bytes ^ u8x16::splat(simd, 0x80)
        })
    });
}

/// Lets `convert` make the red, green and blue of sixteen pixels from what the planes have there.
#[inline(always)]
fn by_sixteen<S: Simd>(
    simd: S,
    [first, second, third]: [&[u8]; 3],
    out: &mut [u8],
    convert: impl Fn([u8x16<S>; 3]) -> [u8x16<S>; 3],
) {
    let sixteen = |planes: [&[u8; 16]; 3], out: &mut [u8; 48]| {
        let pixels = convert(planes.map(|plane| u8x16::from_slice(simd, plane)));
        for (vector, out) in sort(simd, pixels, &JOINED).into_iter().zip(out.as_chunks_mut::<16>().0) {
            vector.store_slice(out);
        }
    };
    let (turns, rest) = out.as_chunks_mut::<48>();
    let done = turns.len() * 16;
    let parts = first.as_chunks().0.iter().zip(second.as_chunks().0).zip(third.as_chunks().0);
    for (out, ((first, second), third)) in turns.iter_mut().zip(parts) {
        sixteen([first, second, third], out);
    }
    if !rest.is_empty() {
        let mut last = [[0; 16]; 3];
        for (last, plane) in last.iter_mut().zip([first, second, third]) {
            let rest = &plane[done..];
            last[..rest.len()].copy_from_slice(rest);
        }
        let mut pixels = [0; 48];
        sixteen([&last[0], &last[1], &last[2]], &mut pixels);
        rest.copy_from_slice(&pixels[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};

    use super::*;

    /// Bytes of all sizes, at each length.
    fn noise(count: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 29 {
                0 => 0,
                1 => 255,
                _ => (state >> 20) as u8,
            }
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn what_is_split_is_joined_again() {
        for level in [Level::new(), Level::fallback()] {
            for width in [1, 5, 15, 16, 17, 31, 48, 100] {
                let pixels = noise(width * 3, 7);
                let mut planes = vec![vec![0; width]; 3];
                if let [red, green, blue] = &mut planes[..] {
                    dispatch!(level, simd => split(simd, &pixels, [red, green, blue]));
                }
                let expected: Vec<u8> = pixels.iter().skip(1).step_by(3).copied().collect();
                assert_eq!(planes[1], expected);
                let mut joined = vec![0; width * 3];
                dispatch!(level, simd => join(simd, [&planes[0], &planes[1], &planes[2]], &mut joined));
                assert_eq!(joined, pixels);
            }
        }
    }

    #[test]
    fn colours_are_those_of_libjpeg() {
        let by_definition = |y: u8, cb: u8, cr: u8| {
            let (y, cb, cr) = (i32::from(y) << 16 | 0x8000, i32::from(cb) - 128, i32::from(cr) - 128);
            let whole = |value: i32| (value >> 16).clamp(0, 255) as u8;
            [whole(y + 91_881 * cr), whole(y - 22_554 * cb - 46_802 * cr), whole(y + 116_130 * cb)]
        };
        // All pairs of chroma, with every luma somewhere.
        let count = 256 * 256 + 5;
        let (y, cb): (Vec<u8>, Vec<u8>) = (noise(count, 3), (0..count).map(|at| (at >> 8) as u8).collect());
        let cr: Vec<u8> = (0..count).map(|at| at as u8).collect();
        for level in [Level::new(), Level::fallback()] {
            let mut out = vec![0; count * 3];
            dispatch!(level, simd => join_ycc(simd, [&y, &cb, &cr], &mut out));
            for (at, pixel) in out.chunks_exact(3).enumerate() {
                assert_eq!(pixel, by_definition(y[at], cb[at], cr[at]), "{} {} {}", y[at], cb[at], cr[at]);
            }
        }
    }
}
