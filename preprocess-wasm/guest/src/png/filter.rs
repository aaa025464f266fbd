//! The filters of PNG (W3C, "Portable Network Graphics", 9), undone row by row.
//!
//! Each pixel but those of `Up` is made from the one before it, so vectors go over the channels of a pixel: without
//! branches, and with all channels at once.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, i16x8, u8x16, u16x8};

/// Bytes behind each row that may be read and written: they mean nothing.
pub(super) const PADDING: usize = 16;

/// Makes `current` of the `filtered` row and the `previous` one, all with [`PADDING`]. `None` if there is no such filter.
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
        (2, _) => {
            for ((out, filtered), above) in current.iter_mut().zip(filtered).zip(previous) {
                *out = filtered.wrapping_add(*above);
            }
        }
        (1, 1) => sub::<1>(filtered, current),
        (1, 2) => sub::<2>(filtered, current),
        (1, 3) => sub::<3>(filtered, current),
        (1, 4) => sub::<4>(filtered, current),
        (3, 1) => average::<1>(previous, filtered, current),
        (3, 2) => average::<2>(previous, filtered, current),
        (3, 3) => average::<3>(previous, filtered, current),
        (3, 4) => average::<4>(previous, filtered, current),
        (4, 1) => dispatch!(level, simd => paeth::<1, _>(simd, previous, filtered, current)),
        (4, 2) => dispatch!(level, simd => paeth::<2, _>(simd, previous, filtered, current)),
        (4, 3) => dispatch!(level, simd => paeth::<3, _>(simd, previous, filtered, current)),
        (4, 4) => dispatch!(level, simd => paeth::<4, _>(simd, previous, filtered, current)),
        _ => return None,
    }
    Some(())
}

fn sub<const CHANNELS: usize>(filtered: &[u8], current: &mut [u8]) {
    let mut left = [0_u8; CHANNELS];
    for (out, filtered) in
        current.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(filtered.as_chunks::<CHANNELS>().0)
    {
        for (left, filtered) in left.iter_mut().zip(filtered) {
            *left = left.wrapping_add(*filtered);
        }
        *out = left;
    }
}

fn average<const CHANNELS: usize>(previous: &[u8], filtered: &[u8], current: &mut [u8]) {
    let mut left = [0_u8; CHANNELS];
    let sources = filtered.as_chunks::<CHANNELS>().0.iter().zip(previous.as_chunks::<CHANNELS>().0);
    for (out, (filtered, above)) in current.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(sources) {
        for ((left, filtered), above) in left.iter_mut().zip(filtered).zip(above) {
            let mean = (u16::from(*left) + u16::from(*above)) / 2;
            *left = filtered.wrapping_add(mean as u8);
        }
        *out = left;
    }
}

/// In the form of stb_image: of left, above and their corner, the middle one or the one beyond.
#[inline(always)]
fn paeth<const CHANNELS: usize, S: Simd>(simd: S, previous: &[u8], filtered: &[u8], current: &mut [u8]) {
    let load = |row: &[u8]| -> i16x8<S> { u8x16::from_slice(simd, row).widen().0.bitcast() };
    let byte = i16x8::splat(simd, 0xff);
    let (mut left, mut corner) = (i16x8::splat(simd, 0), i16x8::splat(simd, 0));
    let rows = previous.windows(16).zip(filtered.windows(16)).step_by(CHANNELS);
    for (at, (above, filtered)) in (0..current.len() - PADDING).step_by(CHANNELS).zip(rows) {
        let above = load(above);
        let threshold = corner + corner + corner - above - left;
        let (low, high) = (above.min(left), above.max(left));
        let predicted = high.simd_le(threshold).select(low, corner);
        let predicted = threshold.simd_le(low).select(high, predicted);
        left = (load(filtered) + predicted) & byte;
        corner = above;
        let bytes: u16x8<S> = left.bitcast();
        bytes.saturating_narrow(bytes).store_slice(&mut current[at..at + 16]);
    }
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
