#![allow(clippy::unwrap_used)]

use super::*;
use crate::detect::client::BoundingBox;

const GREY: Rgb<u8> = Rgb([90; 3]);

fn detection(bbox: [f32; 4]) -> Detection {
    let [x_min, y_min, x_max, y_max] = bbox;
    let bbox = BoundingBox { x_min, y_min, x_max, y_max };
    Detection { class_name: "bus".to_owned(), confidence: 0.97, bbox }
}

fn drawn(width: u32, height: u32, bbox: [f32; 4]) -> RgbImage {
    let mut image = RgbImage::from_pixel(width, height, GREY);
    draw_detections(&mut image, &[detection(bbox)]);
    image
}

#[test]
fn the_box_lies_on_its_edges_and_leaves_the_inside() {
    let image = drawn(400, 400, [0.25, 0.5, 0.75, 0.75]);
    let color = color_of("bus");
    for (x, y) in [(100, 250), (299, 250), (150, 200), (150, 299), (100, 200), (299, 299)] {
        assert_eq!(image.get_pixel(x, y), &color, "edge at {x},{y}");
    }
    for (x, y) in [(200, 250), (99, 250), (300, 250), (150, 300), (5, 5), (399, 399)] {
        assert_eq!(image.get_pixel(x, y), &GREY, "untouched at {x},{y}");
    }
}

#[test]
fn the_label_is_above_the_box_in_letters_that_stand_out() {
    let image = drawn(400, 400, [0.25, 0.5, 0.75, 0.75]);
    let (color, ink) = (color_of("bus"), text_on(color_of("bus")));
    let label: Vec<_> = (180..200).flat_map(|y| (100..260).map(move |x| (x, y))).collect();
    let of = |wanted: Rgb<u8>| label.iter().filter(|(x, y)| image.get_pixel(*x, *y) == &wanted).count();
    assert!(of(ink) > 300, "{} pixels of text", of(ink));
    assert!(of(color) > of(ink), "the text has a ground");
}

#[test]
fn photos_and_boxes_of_any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (3, 900), (40, 30), (2500, 1300)] {
        for bbox in [[0.0, 0.0, 1.0, 1.0], [0.99, 0.99, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.2, 0.0]]
        {
            assert_eq!(drawn(width, height, bbox).dimensions(), (width, height));
        }
    }
    assert_ne!(drawn(40, 30, [0.2, 0.5, 0.9, 0.9]).get_pixel(8, 20), &GREY);
}

#[test]
fn a_class_keeps_its_color() {
    assert_eq!(color_of("car"), color_of("car"));
    assert_ne!(color_of("car"), color_of("bus"));
}

#[test]
fn the_copy_is_written_upright_in_the_format_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut photo = Cursor::new(Vec::new());
    RgbImage::from_pixel(64, 48, GREY).write_to(&mut photo, image::ImageFormat::Png).unwrap();
    let photo = photo.into_inner();
    for (name, format) in [("deep/a.png", image::ImageFormat::Png), ("b.jpg", image::ImageFormat::Jpeg)] {
        let target = folder.path().join(name);
        assert_eq!(annotate(&photo, &[detection([0.1, 0.4, 0.9, 0.9])], &target).unwrap(), (64, 48));
        let copy = std::fs::read(&target).unwrap();
        assert_eq!(image::guess_format(&copy).unwrap(), format);
        assert_ne!(image::load_from_memory(&copy).unwrap().into_rgb8(), RgbImage::from_pixel(64, 48, GREY));
    }
    assert!(
        annotate(b"no photo", &[], &folder.path().join("c.png")).unwrap_err().contains("cannot be drawn")
    );
    assert!(!folder.path().join("c.png").exists());
}
