//! The sample photo and what is in it.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use serde::Deserialize;
use std::io::Cursor;
use std::path::PathBuf;

/// Pixels.
pub(crate) const WIDTH: f64 = 546.0;
/// Pixels.
pub(crate) const HEIGHT: f64 = 413.0;

/// What the detector's documentation finds in the photo: class, least confidence, x_min y_min x_max y_max in pixels.
const EXPECTED: [(&str, f64, [f64; 4]); 2] =
    [("bus", 0.9, [60.0, 123.0, 482.0, 394.0]), ("car", 0.7, [12.0, 286.0, 63.0, 329.0])];
/// Boxes that overlap this much are the same.
const LEAST_IOU: f64 = 0.9;

/// One detection as the JSON interfaces send it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Detection {
    pub(crate) class_name: String,
    pub(crate) confidence: f64,
    pub(crate) bbox: BoundingBox,
}

/// Fractions of the upright photo.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoundingBox {
    pub(crate) x_min: f64,
    pub(crate) y_min: f64,
    pub(crate) x_max: f64,
    pub(crate) y_max: f64,
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn path() -> PathBuf {
    repository().join("tests/photos/double_decker_bus.jpg")
}

pub(crate) fn bytes() -> Vec<u8> {
    std::fs::read(path()).unwrap()
}

/// The photo with 12 megapixels, of which `decode: auto` decodes a quarter in each direction.
pub(crate) fn enlarged() -> Vec<u8> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&of_size(4000, 3000)).unwrap();
    jpeg
}

/// The photo as images that the sandbox decodes in each lane behind the quick one.
pub(crate) fn of_other_lanes() -> [Vec<u8>; 3] {
    let mut longest = Vec::new();
    JpegEncoder::new_with_quality(&mut longest, 50).encode_image(&of_size(5200, 5000)).unwrap();
    let mut png = Cursor::new(Vec::new());
    of_size(2500, 2000).write_to(&mut png, ImageFormat::Png).unwrap();
    [enlarged(), longest, png.into_inner()]
}

/// The photo as images that take over a tenth of a second, with what they are.
pub(crate) fn long_ones() -> [(&'static str, Vec<u8>); 3] {
    let progressive = |width: u16, height: u16| {
        let mut jpeg = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
        encoder.set_progressive(true);
        let pixels = of_size(width.into(), height.into()).into_raw();
        encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        jpeg
    };
    let mut png = Cursor::new(Vec::new());
    of_size(4000, 3000).write_to(&mut png, ImageFormat::Png).unwrap();
    [
        ("progressive JPEG of 6 megapixels", progressive(2828, 2121)),
        ("progressive JPEG of 12 megapixels", progressive(4000, 3000)),
        ("PNG of 12 megapixels", png.into_inner()),
    ]
}

fn of_size(width: u32, height: u32) -> RgbImage {
    let photo = image::load_from_memory(&bytes()).unwrap().into_rgb8();
    imageops::resize(&photo, width, height, FilterType::CatmullRom)
}

/// Fails unless `detections` are those of the photo: a bus and a car where they are, best first, vehicles only.
pub(crate) fn assert_detections(detections: &[Detection]) {
    for (class, least, [x_min, y_min, x_max, y_max]) in EXPECTED {
        let expected = BoundingBox {
            x_min: x_min / WIDTH,
            y_min: y_min / HEIGHT,
            x_max: x_max / WIDTH,
            y_max: y_max / HEIGHT,
        };
        let found = detections.iter().any(|detection| {
            detection.class_name == class
                && detection.confidence >= least
                && iou(detection.bbox, expected) >= LEAST_IOU
        });
        assert!(found, "no {class} of at least {least} at {expected:?} in {detections:#?}");
    }
    assert!(detections.is_sorted_by(|a, b| a.confidence >= b.confidence), "not best first: {detections:#?}");
    for Detection { class_name, confidence, bbox } in detections {
        assert!(["car", "truck", "bus"].contains(&class_name.as_str()), "{class_name} is not kept");
        assert!((0.0..=1.0).contains(confidence), "{confidence}");
        let edges = [bbox.x_min, bbox.y_min, bbox.x_max, bbox.y_max];
        assert!(edges.iter().all(|edge| (0.0..=1.0).contains(edge)), "{bbox:?}");
        assert!(bbox.x_min < bbox.x_max && bbox.y_min < bbox.y_max, "{bbox:?}");
    }
}

/// Fails unless both are the same detections, up to the precision of an f32 on its way through text.
pub(crate) fn assert_same(left: &[Detection], right: &[Detection]) {
    assert_eq!(left.len(), right.len(), "{left:#?} and {right:#?}");
    for (a, b) in left.iter().zip(right) {
        assert_eq!(a.class_name, b.class_name);
        assert!((a.confidence - b.confidence).abs() < 1e-5, "{a:?} and {b:?}");
        assert!(iou(a.bbox, b.bbox) > 0.9999, "{a:?} and {b:?}");
    }
}

/// Intersection over union of two boxes.
pub(crate) fn iou(a: BoundingBox, b: BoundingBox) -> f64 {
    let area =
        |x_min: f64, y_min: f64, x_max: f64, y_max: f64| (x_max - x_min).max(0.0) * (y_max - y_min).max(0.0);
    let both = area(a.x_min.max(b.x_min), a.y_min.max(b.y_min), a.x_max.min(b.x_max), a.y_max.min(b.y_max));
    let of = |c: BoundingBox| area(c.x_min, c.y_min, c.x_max, c.y_max);
    both / (of(a) + of(b) - both)
}

#[test]
fn overlap_is_measured_right() {
    let unit = BoundingBox { x_min: 0.0, y_min: 0.0, x_max: 1.0, y_max: 1.0 };
    let right_half = BoundingBox { x_min: 0.5, ..unit };
    let elsewhere = BoundingBox { x_min: 2.0, x_max: 3.0, ..unit };
    assert_eq!(iou(unit, unit), 1.0);
    assert_eq!(iou(unit, right_half), 0.5);
    assert_eq!(iou(unit, elsewhere), 0.0);
}
