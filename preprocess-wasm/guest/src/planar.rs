//! Images whose planes are resampled row by row as they are decoded, each by itself, to RGB of the target's size.
//!
//! Y, Cb and Cr are never brought to one size and colour at the image's size: that is most of a decoder's work after the
//! transforms, and all of it but the target's pixels would be thrown away.

mod interleaved;

use fearless_simd::{Level, dispatch};

use crate::decode::over_white;
use crate::jpeg::{Baseline, ROW_PADDING, Sampling};
use crate::plane::{LANES, PlaneResampler, Span};
use crate::png::Png;
use crate::resize::{Decode, Filter, Options, Target};

const _: () = assert!(ROW_PADDING >= LANES);

/// A baseline JPEG as RGB pixels of the target's inner size. `None` if it must be decoded another way.
pub(crate) fn jpeg(jpeg: &Baseline<'_>, target: &Target, options: &Options) -> Option<Vec<u8>> {
    if options.filter == Filter::Nearest {
        return None;
    }
    let components = jpeg.components();
    let sizes: Vec<usize> =
        components.iter().map(|component| block_size(*component, target, options.decode)).collect();
    let planes: Option<Vec<PlaneResampler>> = components
        .iter()
        .zip(&sizes)
        .map(|(component, &size)| plane(jpeg.size(), *component, size, target, options.filter))
        .collect();
    let mut planes = planes?;
    let level = Level::new();
    jpeg.decode(&sizes, |component, row| planes[component].push(level, row))?;
    rgb(planes, target, |y, cb, cr, out| {
        dispatch!(level, simd => interleaved::join_ycc(simd, [y, cb, cr], out));
    })
}

/// A PNG as RGB pixels of the target's inner size, transparency laid over white. `None` if it must be decoded another way.
pub(crate) fn png(png: &Png<'_>, target: &Target, options: &Options) -> Option<Vec<u8>> {
    if options.filter == Filter::Nearest {
        return None;
    }
    let channels = png.channels();
    let whole = Sampling { horizontal: 1.0, vertical: 1.0 };
    let one = || plane(png.size(), whole, 8, target, options.filter);
    let mut planes: Vec<PlaneResampler> =
        (0..if channels < 3 { 1 } else { 3 }).map(|_| one()).collect::<Option<_>>()?;
    let level = Level::new();
    let width = png.size().0;
    let mut parts = vec![vec![0; width + LANES]; planes.len()];
    png.rows(level, |row| {
        match (&mut parts[..], channels) {
            ([grey], 1) => grey[..width].copy_from_slice(row),
            ([grey], _) => {
                for (&[value, alpha], grey) in row.as_chunks::<2>().0.iter().zip(grey) {
                    [*grey] = over_white([value], alpha);
                }
            }
            ([red, green, blue], 3) => {
                dispatch!(level, simd => interleaved::split(simd, row, [red, green, blue]));
            }
            ([red, green, blue], _) => {
                let parts = red.iter_mut().zip(green).zip(blue);
                for (&[r, g, b, alpha], ((red, green), blue)) in row.as_chunks::<4>().0.iter().zip(parts) {
                    [*red, *green, *blue] = over_white([r, g, b], alpha);
                }
            }
            _ => unreachable!("there are one or three planes"),
        }
        for (plane, part) in planes.iter_mut().zip(&parts) {
            plane.push(level, part);
        }
    })?;
    rgb(planes, target, |red, green, blue, out| {
        dispatch!(level, simd => interleaved::join(simd, [red, green, blue], out));
    })
}

/// Pixels of one plane, which is grey, or of three, which `convert` joins row by row.
fn rgb(
    planes: Vec<PlaneResampler>,
    target: &Target,
    convert: impl Fn(&[u8], &[u8], &[u8], &mut [u8]),
) -> Option<Vec<u8>> {
    let planes = planes.into_iter().map(PlaneResampler::finish).collect::<Option<Vec<_>>>()?;
    let width = target.inner.0 as usize;
    let rows = |at: usize| planes[at].0.chunks_exact(planes[at].1).map(|row| &row[..width]);
    let mut rgb = vec![0; width * target.inner.1 as usize * 3];
    let out = rgb.chunks_exact_mut(width * 3);
    if planes.len() == 1 {
        for (row, out) in rows(0).zip(out) {
            for (value, pixel) in row.iter().zip(out.as_chunks_mut::<3>().0) {
                *pixel = [*value; 3];
            }
        }
    } else {
        for (((first, second), third), out) in rows(0).zip(rows(1)).zip(rows(2)).zip(out) {
            convert(first, second, third, out);
        }
    }
    Some(rgb)
}

/// Samples a block is decoded to, a side: the fewest with which the component has twice the target's in each direction.
fn block_size(component: Sampling, target: &Target, decode: Decode) -> usize {
    let is_enough = |size: &usize| {
        let eighths = *size as f64 / 8.0;
        target.visible.0 * component.horizontal * eighths >= 2.0 * f64::from(target.inner.0)
            && target.visible.1 * component.vertical * eighths >= 2.0 * f64::from(target.inner.1)
    };
    match decode {
        Decode::Full => 8,
        Decode::Auto => [1, 2, 4].into_iter().find(is_enough).unwrap_or(8),
    }
}

/// For an image of this size in pixels, of whose samples `block` of eight are left.
fn plane(
    (width, height): (usize, usize),
    component: Sampling,
    block: usize,
    target: &Target,
    filter: Filter,
) -> Option<PlaneResampler> {
    let span = |pixels: usize, visible: f64, sampling: f64, target: u32| {
        // Samples per pixel of the image.
        let scale = sampling * block as f64 / 8.0;
        Span {
            samples: (pixels as f64 * scale).ceil() as usize,
            from: (pixels as f64 - visible) / 2.0 * scale,
            length: visible * scale,
            target: target as usize,
        }
    };
    let horizontal = span(width, target.visible.0, component.horizontal, target.inner.0);
    let vertical = span(height, target.visible.1, component.vertical, target.inner.1);
    PlaneResampler::new(horizontal, vertical, filter)
}
