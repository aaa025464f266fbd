//! Good and bad images through the embedded component.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use sandbox::{Color, Filter, Fit, Limits, Placement, Resize, Sandbox, SandboxConfig, SandboxError};

use crate::fixtures::{Meter, encode, photo, sandbox, stretch};

#[tokio::test]
async fn the_photo_becomes_the_detectors_tensor() {
    let tensor = sandbox().tensor(photo(), stretch(300, 300), None).await.unwrap();
    assert_eq!((tensor.width, tensor.height, tensor.pixels.len()), (300, 300, 270_000));
    let mean = tensor.pixels.iter().map(|&b| f64::from(b)).sum::<f64>() / 270_000.0;
    assert!((tensor.features.mean_brightness - mean).abs() < 1e-9, "{:?}", tensor.features);
    assert_eq!(tensor.placement, Placement::FULL);
    assert_eq!((tensor.source.width, tensor.source.height), (546, 413));
    assert_eq!((tensor.source.format.as_str(), tensor.source.mode.as_str()), ("JPEG", "RGB"));
    // Pillow 13.0: `Image.open(photo).resize((300, 300), Image.BICUBIC)`, the pixels at these places.
    let expected = [
        ((10, 10), [253, 253, 253]),
        ((60, 180), [243, 230, 238]),
        ((112, 112), [193, 77, 78]),
        ((150, 60), [253, 253, 253]),
        ((200, 200), [154, 162, 168]),
    ];
    for ((x, y), rgb) in expected {
        let at = (y * 300 + x) * 3;
        let found = &tensor.pixels[at..at + 3];
        assert!(
            found.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 6),
            "({x}, {y}): {found:?}, Pillow {rgb:?}"
        );
    }
}

#[tokio::test]
async fn features_are_pillows() {
    let result = sandbox().preprocess(photo(), stretch(224, 224), None).await.unwrap();
    // Pillow 13.0: mean, population standard deviation, smallest and largest of
    // `Image.open(photo).convert("RGB").resize((224, 224), Image.BICUBIC).tobytes()`.
    let features = result.features;
    assert!((features.mean_brightness - 144.770).abs() < 1.0, "{features:?}");
    assert!((features.std_brightness - 90.856).abs() < 1.0, "{features:?}");
    assert!(features.min_pixel <= 1 && features.max_pixel >= 254, "{features:?}");
    assert_eq!((result.width, result.height), (224, 224));
    let decoded = image::load_from_memory_with_format(&result.jpeg, ImageFormat::Jpeg).unwrap().into_rgb8();
    assert_eq!(decoded.dimensions(), (224, 224));
    let mean = decoded.as_raw().iter().map(|&b| f64::from(b)).sum::<f64>() / decoded.as_raw().len() as f64;
    assert!((mean - features.mean_brightness).abs() < 1.0, "of the JPEG: {mean}");
}

#[tokio::test]
async fn every_format_is_decoded() {
    let image = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(40, 30, image::Rgb([200, 40, 90])));
    let cases = [
        (ImageFormat::Jpeg, "JPEG", "RGB"),
        (ImageFormat::Png, "PNG", "RGB"),
        (ImageFormat::WebP, "WEBP", "RGB"),
        (ImageFormat::Gif, "GIF", "P"),
        (ImageFormat::Bmp, "BMP", "RGB"),
        (ImageFormat::Tiff, "TIFF", "RGB"),
    ];
    for (format, name, mode) in cases {
        let tensor = sandbox().tensor(encode(&image, format), stretch(16, 16), None).await.unwrap();
        assert_eq!((tensor.source.format.as_str(), tensor.source.mode.as_str()), (name, mode));
        assert_eq!((tensor.source.width, tensor.source.height), (40, 30));
        let close = |rgb: &[u8]| rgb.iter().zip([200, 40, 90]).all(|(a, b)| a.abs_diff(b) <= 3);
        assert!(tensor.pixels.chunks_exact(3).all(close), "{name}: {:?}", &tensor.pixels[..3]);
    }
}

#[tokio::test]
async fn the_bytes_are_of_the_colours_that_were_asked_for() {
    let image = image::RgbImage::from_pixel(40, 30, image::Rgb([200, 40, 90]));
    let png = encode(&DynamicImage::ImageRgb8(image), ImageFormat::Png);
    // Pillow's `convert("L")` of (200, 40, 90) gives 94.
    let cases: [(Color, &[u8]); 3] =
        [(Color::Rgb, &[200, 40, 90]), (Color::Bgr, &[90, 40, 200]), (Color::Gray, &[94])];
    for (color, pixel) in cases {
        let resize = Resize { color, ..stretch(8, 8) };
        let tensor = sandbox().tensor(png.clone(), resize, None).await.unwrap();
        assert_eq!(tensor.pixels, pixel.repeat(64), "{color}");
    }
}

#[tokio::test]
async fn exif_orientation_turns_the_image_upright() {
    // White above black; orientation 6 says: turn clockwise by 90 degrees, which puts white on the right.
    let image = image::RgbImage::from_fn(40, 20, |_, y| image::Rgb([if y < 10 { 255 } else { 0 }; 3]));
    let plain = encode(&DynamicImage::ImageRgb8(image), ImageFormat::Jpeg);
    let mut turned = plain[..2].to_vec();
    turned.extend(b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    turned.extend(&plain[2..]);
    let resize = Resize { filter: Filter::Nearest, ..stretch(20, 40) };
    let tensor = sandbox().tensor(turned.into(), resize, None).await.unwrap();
    assert_eq!((tensor.source.width, tensor.source.height), (20, 40));
    for row in tensor.pixels.chunks_exact(20 * 3) {
        assert!(row[3] < 30 && row[18 * 3] > 225, "{row:?}");
    }
}

#[tokio::test]
async fn a_letterboxed_image_is_placed_between_bars() {
    let resize = Resize { fit: Fit::Letterbox, filter: Filter::Bilinear, ..stretch(300, 300) };
    let tensor = sandbox().tensor(photo(), resize, None).await.unwrap();
    let placement = tensor.placement;
    assert_eq!((placement.x_min, placement.x_max), (0.0, 1.0));
    assert!((placement.y_max - placement.y_min - 413.0 / 546.0).abs() < 0.005, "{placement:?}");
    assert_eq!(&tensor.pixels[..3], [114; 3]);
    let whole = [placement.x_min, placement.y_min, placement.x_max, placement.y_max];
    assert_eq!(placement.to_image(whole), [0.0, 0.0, 1.0, 1.0]);
}

#[tokio::test]
async fn what_is_no_whole_image_gets_its_verdict() {
    let photo = photo();
    let png = encode(&DynamicImage::new_rgb8(30, 30), ImageFormat::Png);
    let random: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    type IsExpected = fn(&SandboxError) -> bool;
    let cases: [(Bytes, IsExpected); 7] = [
        (Bytes::new(), |e| *e == SandboxError::Empty),
        (Bytes::from_static(b"hello"), |e| *e == SandboxError::NotAnImage),
        (random.into(), |e| *e == SandboxError::NotAnImage),
        (photo.slice(..photo.len() / 2), |e| matches!(e, SandboxError::Truncated { .. })),
        (photo.slice(..photo.len() - 40), |e| matches!(e, SandboxError::Truncated { .. })),
        (png.slice(..40), |e| matches!(e, SandboxError::Truncated { .. })),
        (
            Bytes::from_static(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"),
            |e| matches!(e, SandboxError::UnsupportedFormat { format } if format == "AVIF"),
        ),
    ];
    for (bytes, is_expected) in cases {
        let error = sandbox().tensor(bytes.clone(), stretch(30, 30), None).await.unwrap_err();
        assert!(is_expected(&error), "{:?}: {error:?}", &bytes[..bytes.len().min(8)]);
        assert!(error.to_string().ends_with('.'), "no sentence: {error}");
    }
    let mut flipped = png.to_vec();
    flipped[45] ^= 0xff;
    let error = sandbox().tensor(flipped.into(), stretch(30, 30), None).await.unwrap_err();
    assert!(matches!(error, SandboxError::Corrupt { .. }), "{error:?}");
    sandbox().tensor(photo, stretch(30, 30), None).await.unwrap();
}

#[tokio::test]
async fn too_many_pixels_are_refused_from_the_header() {
    // The header of a PNG of 60,000x60,000 pixels (its CRC is right), and nothing else.
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0";
    let error = sandbox().tensor(Bytes::from_static(header), stretch(30, 30), None).await.unwrap_err();
    assert_eq!(error, SandboxError::TooManyPixels { width: 60_000, height: 60_000, limit: 50_000_000 });
}

#[tokio::test]
async fn limits_are_the_configured_ones() {
    let limits = Limits { memory_bytes: 4 << 20, max_image_bytes: 300_000, ..Limits::default() };
    let small = Sandbox::new(SandboxConfig { limits, workers: 1, ..SandboxConfig::default() }).unwrap();
    let error = small.tensor(vec![0; 300_001].into(), stretch(30, 30), None).await.unwrap_err();
    assert_eq!(error, SandboxError::TooLarge { bytes: 300_001, limit: 300_000 });
    // 3000x2000 pixels of one colour: few bytes, but 18 MB when decoded.
    let image = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(3000, 2000, image::Rgb([1, 2, 3])));
    let bytes = encode(&image, ImageFormat::WebP);
    assert!(bytes.len() < 300_000, "{}", bytes.len());
    let error = small.tensor(bytes.clone(), stretch(30, 30), None).await.unwrap_err();
    assert_eq!(error, SandboxError::OutOfMemory { limit_bytes: 4 << 20 });
    sandbox().tensor(bytes, stretch(30, 30), None).await.unwrap();
}

#[tokio::test]
async fn what_is_sent_may_be_much_larger_than_what_comes_back() {
    let image = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(3000, 2000, image::Rgb([1, 2, 3])));
    let bytes = encode(&image, ImageFormat::Bmp);
    assert!(bytes.len() > 17_000_000, "{}", bytes.len());
    let tensor = sandbox().tensor(bytes, stretch(2, 2), None).await.unwrap();
    assert_eq!(tensor.pixels, [1, 2, 3].repeat(4));
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    for (width, height) in [(0, 30), (30, 0), (4097, 30), (30, u32::MAX)] {
        let error = sandbox().tensor(photo(), stretch(width, height), None).await.unwrap_err();
        assert!(matches!(error, SandboxError::InvalidOptions { .. }), "{error:?}");
    }
    let largest = sandbox().tensor(photo(), stretch(4096, 4096), None).await.unwrap();
    assert_eq!(largest.pixels.len(), 4096 * 4096 * 3);
}

#[tokio::test]
async fn a_deadline_that_has_passed_runs_nothing() {
    let deadline = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
    let error = sandbox().tensor(photo(), stretch(30, 30), Some(deadline)).await.unwrap_err();
    assert_eq!(error, SandboxError::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_at_once_do_not_see_each_other() {
    let expected = sandbox().tensor(photo(), stretch(64, 64), None).await.unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|i| {
            tokio::spawn(async move {
                // Every other image is broken.
                let image = if i % 2 == 0 { photo() } else { photo().slice(..5000) };
                (i, sandbox().tensor(image, stretch(64, 64), None).await)
            })
        })
        .collect();
    for task in tasks {
        let (i, result) = task.await.unwrap();
        if i % 2 == 0 {
            assert_eq!(result.unwrap(), expected);
        } else {
            assert!(matches!(result, Err(SandboxError::Truncated { .. })));
        }
    }
}

#[tokio::test]
async fn a_meter_without_room_makes_the_sandbox_busy_and_gets_its_memory_back() {
    let run = async |limit| {
        let meter = Meter::of(limit);
        let metered = sandbox().metered(Arc::<Meter>::clone(&meter));
        let result = metered.tensor(photo(), stretch(300, 300), None).await;
        // The instance gives its memory back after the answer.
        while meter.used() != 0 {
            tokio::task::yield_now().await;
        }
        (result, meter.highest())
    };
    let (result, highest) = run(usize::MAX).await;
    result.unwrap();
    assert!(highest > 546 * 413 / 64, "the photo was decoded in {highest} bytes");
    let (result, _) = run(highest).await;
    result.unwrap();
    for limit in [0, highest - 1] {
        let (result, _) = run(limit).await;
        assert!(matches!(result, Err(SandboxError::Busy { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn no_whole_image_lies_in_memory_when_a_jpeg_or_a_png_becomes_a_tensor() {
    let photo = image::load_from_memory(&photo()).unwrap();
    let large = photo.resize_exact(2184, 1652, image::imageops::FilterType::Triangle);
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let bytes = encode(&large, format);
        let meter = Meter::of(usize::MAX);
        let metered = sandbox().metered(Arc::<Meter>::clone(&meter));
        metered.tensor(bytes.clone(), stretch(300, 300), None).await.unwrap();
        let highest = meter.highest();
        // The file, the guest's own memory, and what there is of the tensor; all pixels are ten MiB.
        let expected = bytes.len() + (5 << 20);
        assert!(highest < expected, "{format:?}: {highest} bytes for a file of {}", bytes.len());
    }
}
