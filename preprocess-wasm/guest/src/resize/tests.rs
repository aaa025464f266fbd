#![allow(clippy::unwrap_used)]

use super::*;

fn options(width: u32, height: u32, fit: Fit) -> Options {
    Options { width, height, fit, filter: Filter::Bicubic, color: Color::Rgb, decode: Decode::Full }
}

/// Left half red, right half blue.
fn halves(width: u32, height: u32) -> Rgb {
    let pixels = (0..height)
        .flat_map(|_| (0..width).flat_map(move |x| if x < width / 2 { [255, 0, 0] } else { [0, 0, 255] }))
        .collect();
    Rgb { width, height, pixels }
}

fn pixel(image: &Rgb, x: u32, y: u32) -> [u8; 3] {
    let at = (y * image.width + x) as usize * 3;
    [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
}

#[test]
fn the_same_size_is_a_copy() {
    let image = halves(8, 6);
    let (resized, placement) =
        resize(&image, Orientation::NoTransforms, &options(8, 6, Fit::Stretch)).unwrap();
    assert_eq!(resized, image);
    assert_eq!(placement, Placement::FULL);
}

#[test]
fn every_filter_keeps_one_colour() {
    let image = Rgb { width: 50, height: 31, pixels: [10, 200, 30].repeat(50 * 31) };
    for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
        let options = Options { filter, ..options(17, 64, Fit::Stretch) };
        let (resized, _) = resize(&image, Orientation::NoTransforms, &options).unwrap();
        assert_eq!(resized.pixels, [10, 200, 30].repeat(17 * 64), "{filter:?}");
    }
}

#[test]
fn letterbox_lays_the_image_between_bars() {
    let (resized, placement) =
        resize(&halves(100, 50), Orientation::NoTransforms, &options(40, 40, Fit::Letterbox)).unwrap();
    assert_eq!(placement, Placement { x_min: 0.0, y_min: 0.25, x_max: 1.0, y_max: 0.75 });
    assert_eq!(pixel(&resized, 5, 9), [BAR; 3]);
    assert_eq!(pixel(&resized, 5, 10), [255, 0, 0]);
    assert_eq!(pixel(&resized, 35, 29), [0, 0, 255]);
    assert_eq!(pixel(&resized, 35, 30), [BAR; 3]);
}

#[test]
fn letterbox_of_a_tall_image_has_bars_at_its_sides() {
    let (resized, placement) =
        resize(&halves(50, 100), Orientation::NoTransforms, &options(40, 40, Fit::Letterbox)).unwrap();
    assert_eq!(placement, Placement { x_min: 0.25, y_min: 0.0, x_max: 0.75, y_max: 1.0 });
    assert_eq!(pixel(&resized, 9, 20), [BAR; 3]);
    assert_eq!(pixel(&resized, 10, 20), [255, 0, 0]);
    assert_eq!(pixel(&resized, 30, 20), [BAR; 3]);
}

#[test]
fn crop_takes_the_middle() {
    // Green quarters at both ends of a 4:1 image, red and blue in the middle half.
    let pixels = (0..20)
        .flat_map(|_| {
            (0..80).flat_map(|x| match x {
                20..40 => [255, 0, 0],
                40..60 => [0, 0, 255],
                _ => [0, 255, 0],
            })
        })
        .collect();
    let image = Rgb { width: 80, height: 20, pixels };
    let (resized, placement) =
        resize(&image, Orientation::NoTransforms, &options(40, 20, Fit::Crop)).unwrap();
    assert_eq!(placement, Placement { x_min: -0.5, y_min: 0.0, x_max: 1.5, y_max: 1.0 });
    assert!((0..20).all(|y| pixel(&resized, 2, y) == [255, 0, 0] && pixel(&resized, 37, y) == [0, 0, 255]));
}

#[test]
fn extreme_shapes_keep_at_least_one_pixel() {
    let image = Rgb { width: 1, height: 5000, pixels: [9, 9, 9].repeat(5000) };
    for fit in [Fit::Stretch, Fit::Letterbox, Fit::Crop] {
        let (resized, placement) = resize(&image, Orientation::NoTransforms, &options(30, 30, fit)).unwrap();
        assert_eq!(resized.pixels.len(), 30 * 30 * 3);
        assert!(placement.x_min < placement.x_max && placement.y_min < placement.y_max);
    }
}

#[test]
fn all_orientations_turn_as_the_image_crate_does() {
    let pixels: Vec<u8> = (0..5 * 3 * 3).map(|i| i as u8).collect();
    for exif in 1..=8 {
        let orientation = Orientation::from_exif(exif).unwrap();
        let stored = image::RgbImage::from_raw(5, 3, pixels.clone()).unwrap();
        let mut expected = image::DynamicImage::ImageRgb8(stored);
        expected.apply_orientation(orientation);
        assert_eq!(turn(pixels.clone(), (5, 3), orientation), expected.into_bytes(), "EXIF {exif}");
    }
}

#[test]
fn turning_after_the_resize_is_turning_before_it() {
    let image = halves(60, 40);
    let stored = image::RgbImage::from_raw(60, 40, image.pixels.clone()).unwrap();
    for exif in 1..=8 {
        let orientation = Orientation::from_exif(exif).unwrap();
        let mut upright = image::DynamicImage::ImageRgb8(stored.clone());
        upright.apply_orientation(orientation);
        let upright = Rgb { width: upright.width(), height: upright.height(), pixels: upright.into_bytes() };
        for fit in [Fit::Stretch, Fit::Letterbox, Fit::Crop] {
            let options = options(25, 33, fit);
            let (after, placed) = resize(&image, orientation, &options).unwrap();
            let (before, expected) = resize(&upright, Orientation::NoTransforms, &options).unwrap();
            assert_eq!(placed, expected);
            let worst = after.pixels.iter().zip(&before.pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(2), "EXIF {exif}, {fit:?}: {worst:?}");
        }
    }
}

#[test]
fn sides_out_of_range_are_refused() {
    for (width, height) in [(0, 10), (10, 0), (4097, 10), (10, u32::MAX)] {
        let error = options(width, height, Fit::Stretch).validate().unwrap_err();
        assert!(matches!(error, Error::InvalidOptions(_)), "{error}");
    }
    assert_eq!(options(1, 4096, Fit::Stretch).validate(), Ok(()));
}
