#![allow(clippy::unwrap_used)]

use super::*;

const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3];

fn whole(samples: usize, target: usize) -> Span {
    Span { samples, from: 0.0, length: samples as f64, target }
}

/// Resamples a plane whose rows lie side by side, and leaves the padding out.
fn resample(level: Level, plane: &[u8], horizontal: Span, vertical: Span, filter: Filter) -> Vec<u8> {
    let mut resampler = PlaneResampler::new(horizontal, vertical, filter).unwrap();
    for row in plane.chunks_exact(horizontal.samples) {
        // What lies behind a row must not matter.
        let row = [row, &[0xa5; LANES + 8]].concat();
        resampler.push(level, &row);
    }
    let (pixels, stride) = resampler.finish().unwrap();
    pixels.chunks_exact(stride).flat_map(|row| &row[..horizontal.target]).copied().collect()
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Not so bright and so dark that a filter's overshoot leaves the range: theirs cuts it off between the passes.
        (state >> 25) as u8 + 64
    };
    (0..count).map(next).collect()
}

#[test]
fn a_plane_of_one_colour_keeps_it() {
    for filter in FILTERS {
        for (from, to) in [((50, 31), (17, 64)), ((1, 1), (30, 30)), ((3, 700), (2, 5)), ((900, 2), (31, 40))]
        {
            let plane = vec![200; from.0 * from.1];
            let out = resample(Level::new(), &plane, whole(from.0, to.0), whole(from.1, to.1), filter);
            assert_eq!(out, vec![200; to.0 * to.1], "{filter:?} {from:?} {to:?}");
        }
    }
}

#[test]
fn it_is_what_fast_image_resize_gives_and_simd_is_scalar() {
    use fast_image_resize::images::{Image, ImageRef};
    use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
    let (width, height) = (123, 77);
    let plane = noise(width * height);
    let source = ImageRef::new(width as u32, height as u32, &plane, PixelType::U8).unwrap();
    for (filter, theirs) in
        FILTERS.into_iter().zip([FilterType::Bilinear, FilterType::CatmullRom, FilterType::Lanczos3])
    {
        for (to, cut) in
            [((40, 30), 0.0), ((300, 20), 0.0), ((20, 99), 10.5), ((200, 200), 3.25), ((123, 77), 0.0)]
        {
            let span = |samples: usize, target| Span {
                from: cut,
                length: samples as f64 - 2.0 * cut,
                ..whole(samples, target)
            };
            let (columns, rows) = (span(width, to.0), span(height, to.1));
            let ours = resample(Level::new(), &plane, columns, rows, filter);
            assert_eq!(ours, resample(Level::fallback(), &plane, columns, rows, filter));
            let mut target = Image::new(to.0 as u32, to.1 as u32, PixelType::U8);
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(theirs)).crop(
                cut,
                cut,
                columns.length,
                rows.length,
            );
            Resizer::new().resize(&source, &mut target, &options).unwrap();
            let worst = ours.iter().zip(target.buffer()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            // Theirs rounds to whole bytes between the passes.
            assert!(worst <= 2, "{filter:?} {to:?}: {worst}");
        }
    }
}

#[test]
fn rows_that_are_missing_are_noticed() {
    let mut resampler = PlaneResampler::new(whole(5, 5), whole(3, 3), Filter::Bilinear).unwrap();
    for _ in 0..2 {
        resampler.push(Level::new(), &[7; 5 + LANES]);
    }
    assert!(resampler.finish().is_none());
}

#[test]
fn a_ring_of_many_rows_is_refused() {
    assert!(PlaneResampler::new(whole(1, 4096), whole(65_500, 1), Filter::Lanczos3).is_none());
    assert!(PlaneResampler::new(whole(8000, 4096), whole(6000, 4096), Filter::Lanczos3).is_some());
}
