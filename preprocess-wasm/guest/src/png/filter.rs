//! The filters of PNG (W3C, "Portable Network Graphics", 9), undone row by row.
//!
//! Each pixel but those of `Up` is made from the one before it, so vectors go over the channels of a pixel: without
//! branches, and with all channels at once. A turn makes four pixels.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, i16x8, u8x16, u16x8};

/// Bytes behind each row that may be read and written: they mean nothing.
pub(super) const PADDING: usize = 16;

/// Makes `current` of the `filtered` row and the `previous` one, all with [`PADDING`]. `None` if there is no such filter.
#[inline(never)]
pub(super) fn undo(
    level: Level,
    channels: usize,
    filter: u8,
    previous: &[u8],
    filtered: &[u8],
    current: &mut [u8],
) -> Option<()> {
    match (filter, channels) {
        (0, _) => current.copy_from_slice(filtered),
        (1, 1) => dispatch!(level, simd => sub::<1, _>(simd, filtered, current)),
        (1, 2) => dispatch!(level, simd => sub::<2, _>(simd, filtered, current)),
        (1, 3) => dispatch!(level, simd => sub::<3, _>(simd, filtered, current)),
        (1, 4) => dispatch!(level, simd => sub::<4, _>(simd, filtered, current)),
        (2, _) => up(previous, filtered, current),
        (3, 1) => dispatch!(level, simd => average::<1, _>(simd, previous, filtered, current)),
        (3, 2) => dispatch!(level, simd => average::<2, _>(simd, previous, filtered, current)),
        (3, 3) => dispatch!(level, simd => average::<3, _>(simd, previous, filtered, current)),
        (3, 4) => dispatch!(level, simd => average::<4, _>(simd, previous, filtered, current)),
        (4, 1) => dispatch!(level, simd => paeth::<1, _>(simd, previous, filtered, current)),
        (4, 2) => dispatch!(level, simd => paeth::<2, _>(simd, previous, filtered, current)),
        (4, 3) => dispatch!(level, simd => paeth::<3, _>(simd, previous, filtered, current)),
        (4, 4) => dispatch!(level, simd => paeth::<4, _>(simd, previous, filtered, current)),
        _ => return None,
    }
    Some(())
}

/// A row's pixels, without its padding, by fours, and those that are left.
#[inline(always)]
fn turns<const CHANNELS: usize>(row: &[u8]) -> (usize, usize) {
    let bytes = row.len() - PADDING;
    (bytes / (4 * CHANNELS) * (4 * CHANNELS), bytes)
}

fn up(previous: &[u8], filtered: &[u8], current: &mut [u8]) {
    let add = |out: &mut [u8], filtered: &[u8], above: &[u8]| {
        for ((out, filtered), above) in out.iter_mut().zip(filtered).zip(above) {
            *out = filtered.wrapping_add(*above);
        }
    };
    let (out, out_rest) = current.as_chunks_mut::<64>();
    let ((filtered, filtered_rest), (above, above_rest)) =
        (filtered.as_chunks::<64>(), previous.as_chunks::<64>());
    for ((out, filtered), above) in out.iter_mut().zip(filtered).zip(above) {
        add(out, filtered, above);
    }
    add(out_rest, filtered_rest, above_rest);
}

/// Makes a row pixel by pixel: `pixel` of what lies above and what is filtered, in the lower lanes.
#[inline(always)]
fn by_pixels<const CHANNELS: usize, S: Simd>(
    simd: S,
    (previous, filtered, current): (&[u8], &[u8], &mut [u8]),
    mut pixel: impl FnMut(i16x8<S>, i16x8<S>) -> i16x8<S>,
) {
    let mut one = |above: &[u8], filtered: &[u8], out: &mut [u8]| {
        let load = |row: &[u8]| -> i16x8<S> { u8x16::from_slice(simd, row).widen().0.bitcast() };
        let bytes: u16x8<S> = pixel(load(&above[..16]), load(&filtered[..16])).bitcast();
        bytes.saturating_narrow(bytes).store_slice(&mut out[..16]);
    };
    let (whole, bytes) = turns::<CHANNELS>(current);
    let reach = 3 * CHANNELS + 16;
    for at in (0..whole).step_by(4 * CHANNELS) {
        let (above, filtered) = (&previous[at..at + reach], &filtered[at..at + reach]);
        let out = &mut current[at..at + reach];
        one(above, filtered, out);
        one(&above[CHANNELS..], &filtered[CHANNELS..], &mut out[CHANNELS..]);
        one(&above[2 * CHANNELS..], &filtered[2 * CHANNELS..], &mut out[2 * CHANNELS..]);
        one(&above[3 * CHANNELS..], &filtered[3 * CHANNELS..], &mut out[3 * CHANNELS..]);
    }
    for at in (whole..bytes).step_by(CHANNELS) {
        one(&previous[at..], &filtered[at..], &mut current[at..]);
    }
}

#[inline(always)]
fn sub<const CHANNELS: usize, S: Simd>(simd: S, filtered: &[u8], current: &mut [u8]) {
    let places = |from: fn(usize, usize) -> usize| -> u8x16<S> {
        let places: [u8; 16] = std::array::from_fn(|at| from(at, CHANNELS) as u8);
        u8x16::from_slice(simd, &places)
    };
    // Places beyond a vector are zero.
    let one_before = places(|at, channels| if at < channels { 255 } else { at - channels });
    let two_before = places(|at, channels| if at < 2 * channels { 255 } else { at - 2 * channels });
    let last = places(|at, channels| 3 * channels + at % channels);
    let mut left = u8x16::splat(simd, 0);
    let (whole, bytes) = turns::<CHANNELS>(current);
    for at in (0..whole).step_by(4 * CHANNELS) {
        let pixels = u8x16::from_slice(simd, &filtered[at..at + 16]);
        let pixels = pixels + pixels.swizzle_dyn_precise(one_before);
        let pixels = pixels + pixels.swizzle_dyn_precise(two_before) + left;
        left = pixels.swizzle_dyn_precise(last);
        pixels.store_slice(&mut current[at..at + 16]);
    }
    for at in whole..bytes {
        let left = if at < CHANNELS { 0 } else { current[at - CHANNELS] };
        current[at] = filtered[at].wrapping_add(left);
    }
}

#[inline(always)]
fn average<const CHANNELS: usize, S: Simd>(simd: S, previous: &[u8], filtered: &[u8], current: &mut [u8]) {
    let byte = i16x8::splat(simd, 0xff);
    let mut left = i16x8::splat(simd, 0);
    by_pixels::<CHANNELS, S>(simd, (previous, filtered, current), |above, filtered| {
        left = (filtered + ((left + above) >> 1)) & byte;
        left
    });
}

/// In the form of stb_image: of left, above and their corner, the middle one or the one beyond. What follows from each of them
/// is made before it is known which it is: from one pixel to the next, nothing is then done but that choice.
#[inline(always)]
fn paeth<const CHANNELS: usize, S: Simd>(simd: S, previous: &[u8], filtered: &[u8], current: &mut [u8]) {
    let byte = i16x8::splat(simd, 0xff);
    let (mut left, mut corner) = (i16x8::splat(simd, 0), i16x8::splat(simd, 0));
    by_pixels::<CHANNELS, S>(simd, (previous, filtered, current), |above, filtered| {
        let threshold = (corner + corner + corner - above) - left;
        let (low, high) = (above.min(left), above.max(left));
        let [of_low, of_high, of_corner] = [low, high, corner].map(|predicted| (filtered + predicted) & byte);
        let of_others = high.simd_gt(threshold).select(of_corner, of_low);
        left = threshold.simd_gt(low).select(of_others, of_high);
        corner = above;
        left
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// As the specification says it.
    fn by_definition(channels: usize, filter: u8, previous: &[u8], filtered: &[u8]) -> Vec<u8> {
        let mut out = vec![0_u8; filtered.len()];
        for at in 0..filtered.len() {
            let before = |row: &[u8]| at.checked_sub(channels).map_or(0, |at| i32::from(row[at]));
            let (a, b, c) = (before(&out), i32::from(previous[at]), before(previous));
            let p = a + b - c;
            let predicted = match filter {
                0 => 0,
                1 => a,
                2 => b,
                3 => (a + b) / 2,
                _ if (p - a).abs() <= (p - b).abs() && (p - a).abs() <= (p - c).abs() => a,
                _ if (p - b).abs() <= (p - c).abs() => b,
                _ => c,
            };
            out[at] = filtered[at].wrapping_add(predicted as u8);
        }
        out
    }

    #[test]
    fn it_is_the_definition_and_simd_is_scalar() {
        let mut state = 3_u32;
        let mut noise = |count: usize| -> Vec<u8> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Now smooth, now rough.
                if state >> 31 == 0 { 100 + (state >> 24 & 7) as u8 } else { (state >> 20) as u8 }
            };
            (0..count).map(next).collect()
        };
        for channels in 1..=4 {
            for filter in 0..=4 {
                for pixels in [1, 2, 5, 6, 33, 300] {
                    let (previous, filtered) =
                        (noise(pixels * channels + PADDING), noise(pixels * channels + PADDING));
                    let end = pixels * channels;
                    let expected = by_definition(channels, filter, &previous[..end], &filtered[..end]);
                    for level in [Level::new(), Level::fallback()] {
                        let mut current = vec![9; end + PADDING];
                        undo(level, channels, filter, &previous, &filtered, &mut current).unwrap();
                        assert_eq!(
                            current[..end],
                            expected,
                            "{filter}, {channels} channels, {pixels} pixels"
                        );
                    }
                }
            }
        }
        assert!(undo(Level::new(), 3, 5, &[0; 19], &[0; 19], &mut [0; 19]).is_none());
    }
}
