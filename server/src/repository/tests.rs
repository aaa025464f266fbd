#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::detection::{Detection, iou};
use crate::scheduler::NoObserver;
use crate::tensor::{DataType, Shape, Tensor};

/// Detections of the sample photo as models/vehicle-detector/LICENSE.md has them: class, least score, box in pixels.
const EXPECTED: [(&str, f32, [f32; 4]); 3] = [
    ("bus", 0.9, [60.0, 123.0, 482.0, 394.0]),
    ("car", 0.7, [12.0, 286.0, 63.0, 329.0]),
    ("car", 0.4, [442.0, 276.0, 545.0, 389.0]),
];
const PHOTO_SIZE: (f32, f32) = (546.0, 413.0);

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn load(config: &RepositoryConfig) -> Result<ModelRepository, LoadError> {
    let library = root().join(".convoy/onnxruntime/libonnxruntime.so").canonicalize().unwrap();
    let config = RepositoryConfig {
        onnxruntime_lib: Some(library),
        profile_time: Duration::from_millis(1),
        ..config.clone()
    };
    ModelRepository::load(&config, Arc::new(NoObserver))
}

/// The sample photo, resized to the detector's input, three times: as it is, mirrored, darkened.
fn images() -> [Vec<u8>; 3] {
    let photo = image::open(root().join("tests/photos/double_decker_bus.jpg")).unwrap();
    let resized = photo.resize_exact(300, 300, image::imageops::FilterType::Triangle).to_rgb8();
    let mirrored = image::imageops::flip_horizontal(&resized);
    let darkened = resized.iter().map(|value| value / 2).collect();
    [resized.into_raw(), mirrored.into_raw(), darkened]
}

fn request(rows: &[&[u8]]) -> InferenceRequest {
    let shape = Shape::from([rows.len() as i64, 300, 300, 3]);
    let tensor =
        Tensor { name: "images".to_owned(), datatype: DataType::Uint8, shape, data: rows.concat().into() };
    InferenceRequest { inputs: vec![tensor], ..InferenceRequest::default() }
}

fn assert_the_photo_is_recognised(detections: &[Detection]) {
    assert!(detections.is_sorted_by(|a, b| a.confidence >= b.confidence));
    assert_eq!(detections.len(), EXPECTED.len(), "{detections:?}");
    for (found, (class, confidence, pixels)) in detections.iter().zip(EXPECTED) {
        let (width, height) = PHOTO_SIZE;
        let [x_min, y_min, x_max, y_max] = pixels;
        let expected = [x_min / width, y_min / height, x_max / width, y_max / height];
        assert_eq!(&*found.class_name, class);
        assert!(found.confidence >= confidence, "{found:?}");
        assert!(iou(found.bbox, expected) > 0.9, "{found:?} is not at {expected:?}");
    }
}

#[tokio::test]
async fn the_detector_finds_the_vehicles_of_the_sample_photo() {
    let repository = load(&RepositoryConfig::new(root().join("models"))).unwrap();
    let model = repository.get("", "").unwrap();
    assert_eq!((model.name(), model.version(), model.task()), ("vehicle-detector", "1", Task::Detection));
    let [photo, ..] = images();
    let response = model.infer(request(&[&photo]), None).await.unwrap();
    let detections = model.detections(&response).unwrap();
    assert_eq!(detections.len(), 1);
    assert_the_photo_is_recognised(&detections[0]);
}

#[tokio::test]
async fn a_batched_row_equals_the_same_request_alone_bit_for_bit() {
    let repository = load(&RepositoryConfig::new(root().join("models"))).unwrap();
    let model = repository.get("vehicle-detector", "1").unwrap();
    let images = images();
    let rows: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let together = model.infer(request(&rows), None).await.unwrap();
    assert_eq!(together.batch_size, 3);
    for (row, image) in rows.iter().enumerate() {
        let alone = model.infer(request(&[image]), None).await.unwrap();
        for (together, alone) in together.outputs.iter().zip(&alone.outputs) {
            let bytes = alone.data.len();
            assert_eq!(together.data[row * bytes..(row + 1) * bytes], alone.data[..], "{} of row {row}", alone.name);
        }
    }
}
