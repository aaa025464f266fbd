#![allow(clippy::unwrap_used)]

use super::*;
use crate::detection::{Detection, iou};
use crate::scheduler::NoObserver;
use crate::tensor::{DataType, Shape, Tensor};
use crate::test_models::{self, repository, root};
use bytes::Bytes;

/// Detections of the sample photo: class, least score, box in pixels of the photo.
const EXPECTED: [(&str, f32, [f32; 4]); 3] = [
    ("bus", 0.9, [60.0, 123.0, 482.0, 394.0]),
    ("car", 0.7, [12.0, 286.0, 63.0, 329.0]),
    ("car", 0.35, [442.0, 276.0, 545.0, 389.0]),
];
const PHOTO_SIZE: (f32, f32) = (546.0, 413.0);

fn load(config: &RepositoryConfig) -> Result<ModelRepository, LoadError> {
    let config = RepositoryConfig {
        onnxruntime_lib: Some(test_models::library()),
        profile_time: Duration::from_millis(1),
        // These tests may run on a machine that has much else to do.
        slo: None,
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
            assert_eq!(
                together.data[row * bytes..(row + 1) * bytes],
                alone.data[..],
                "{} of row {row}",
                alone.name
            );
        }
    }
}

fn tensor<T: bytemuck::NoUninit>(name: &str, datatype: DataType, shape: &[i64], values: &[T]) -> Tensor {
    let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
    Tensor { name: name.to_owned(), datatype, shape: Shape::from(shape), data }
}

fn inputs(inputs: Vec<Tensor>) -> InferenceRequest {
    InferenceRequest { inputs, ..InferenceRequest::default() }
}

fn load_models(models: &[(&str, &str, &str)]) -> Result<ModelRepository, LoadError> {
    let folder = repository(models);
    for (name, ..) in models {
        std::fs::write(folder.path().join(name).join("labels.txt"), "cat\ndog\n").unwrap();
    }
    load(&RepositoryConfig::new(folder.path()))
}

/// Two images of 4x4 pixels for the small detectors: red planes are boxes, green planes scores.
fn small_images() -> Vec<u8> {
    let pixel = |image: u8, at: u8| {
        let near = image * 20 + at * 3;
        let red = if at % 4 < 2 { near } else { 128 + near };
        [red, 250 - at * 9 - image, 77]
    };
    (0..2).flat_map(|image| (0..16).flat_map(move |at| pixel(image, at))).collect()
}

const DETECTION: &str = "parameters { key: \"task\" value { string_value: \"detection\" } }";

#[tokio::test]
async fn a_planar_float_model_gives_the_same_detections_as_the_one_with_pixels() {
    let planar = format!(
        "{DETECTION} parameters {{ key: \"mean\" value {{ string_value: \"128\" }} }}
         parameters {{ key: \"scale\" value {{ string_value: \"0.0078125\" }} }}"
    );
    let models = [("planar", "planar", &*planar), ("interleaved", "interleaved", DETECTION)];
    let repository = load_models(&models).unwrap();
    let pixels = tensor("images", DataType::Uint8, &[2, 4, 4, 3], &small_images());
    let mut detections = Vec::new();
    for name in ["planar", "interleaved"] {
        let model = repository.get(name, "").unwrap();
        let response = model.infer(inputs(vec![pixels.clone()]), None).await.unwrap();
        detections.push((model.detections(&response).unwrap(), response.outputs));
    }
    assert!(detections[0].0.iter().all(|row| !row.is_empty()));
    assert_eq!(detections[0], detections[1]);

    // The planar values themselves are taken as they are, and not normalised again.
    let planes: Vec<f32> = small_images()
        .chunks_exact(48)
        .flat_map(|image| (0..48).map(|at| f32::from(image[at % 16 * 3 + at / 16])))
        .map(|value| (value - 128.0) * 0.007_812_5)
        .collect();
    let planes = tensor("images", DataType::Fp32, &[2, 3, 4, 4], &planes);
    let own = repository.get("planar", "").unwrap().infer(inputs(vec![planes]), None).await.unwrap();
    assert_eq!(own.outputs, detections[0].1);
}

#[tokio::test]
async fn outputs_are_those_asked_for_in_that_order() {
    let repository = load_models(&[("m", "interleaved", "")]).unwrap();
    let model = repository.get("m", "1").unwrap();
    let pixels = tensor("images", DataType::Uint8, &[1, 4, 4, 3], &small_images()[..48]);
    for wanted in [&["scores"][..], &["scores", "boxes"], &[]] {
        let request = InferenceRequest {
            outputs: wanted.iter().map(|&name| name.to_owned()).collect(),
            ..inputs(vec![pixels.clone()])
        };
        let response = model.infer(request, None).await.unwrap();
        let names: Vec<&str> = response.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, if wanted.is_empty() { &["boxes", "scores"][..] } else { wanted });
    }
    let error = model.detections(&model.infer(inputs(vec![pixels]), None).await.unwrap()).unwrap_err();
    assert!(matches!(error, ServingError::InvalidInput(_)));
}

#[tokio::test]
async fn models_of_every_kind_are_served() {
    let repository = load_models(&[
        ("unbatched", "unbatched", ""),
        ("open", "open", ""),
        ("lookup", "lookup", "max_batch_size: 4"),
    ])
    .unwrap();
    let x = tensor("x", DataType::Fp32, &[3], &[1.0_f32, 2.0, 3.0]);
    let model = repository.get("unbatched", "").unwrap();
    assert_eq!((model.max_batch_size(), model.vision(), model.task()), (0, None, Task::None));
    let response = model.infer(inputs(vec![x]), None).await.unwrap();
    assert_eq!(response.outputs, [tensor("y", DataType::Fp32, &[3], &[2.0_f32, 4.0, 6.0])]);

    let model = repository.get("open", "").unwrap();
    let rows = [
        tensor("x", DataType::Fp32, &[1, 2], &[1.0_f32, 2.0]),
        tensor("x", DataType::Fp32, &[1, 3], &[3.0_f32; 3]),
    ];
    let [two, three] = rows.map(|row| model.infer(inputs(vec![row]), None));
    let (two, three) = tokio::join!(two, three);
    assert_eq!(two.unwrap().outputs[0].shape.to_vec(), [1, 2]);
    assert_eq!(three.unwrap().outputs[0].shape.to_vec(), [1, 3]);

    let model = repository.get("lookup", "").unwrap();
    let index = |value: i64| inputs(vec![tensor("index", DataType::Int64, &[1, 1], &[value])]);
    let answers =
        tokio::join!(model.infer(index(1), None), model.infer(index(9), None), model.infer(index(3), None));
    let value = |response: InferenceResponse| bytemuck::cast_slice::<u8, f32>(&response.outputs[0].data)[0];
    assert_eq!(answers.0.map(value), Ok(10.0));
    assert_eq!(answers.1.map(value), Err(ServingError::ExecutionFailed { model: "lookup".to_owned() }));
    assert_eq!(answers.2.map(value), Ok(30.0));
}

#[test]
fn names_and_versions_find_their_model() {
    let one = load_models(&[("only", "lookup", "")]).unwrap();
    assert_eq!(one.get("", "").unwrap().name(), "only");
    assert_eq!(one.default_model().as_deref(), Some("only"));
    assert!(matches!(one.get("only", "2"), Err(ServingError::VersionNotFound { .. })));
    assert!(matches!(one.get("other", ""), Err(ServingError::ModelNotFound { .. })));
    let two = load_models(&[("b", "lookup", ""), ("a", "open", "")]).unwrap();
    assert!(matches!(two.get("", ""), Err(ServingError::NoDefaultModel)));
    let index: Vec<_> =
        two.index(false).into_iter().map(|entry| (entry.name, entry.version, entry.state)).collect();
    assert_eq!(
        index,
        [("a", "1", "READY"), ("b", "1", "READY")].map(|(n, v, s)| (n.to_owned(), v.to_owned(), s))
    );

    let folder = repository(&[("b", "lookup", ""), ("a", "open", "")]);
    let config = |name: &str| RepositoryConfig {
        default_model: Some(name.to_owned()),
        ..RepositoryConfig::new(folder.path())
    };
    assert_eq!(load(&config("b")).unwrap().get("", "").unwrap().name(), "b");
    let error = load(&config("c")).err().unwrap().to_string();
    assert!(error.contains("does not hold the default model `c`; its models are a, b"), "{error}");
    // One file alone is a model, too.
    let file = load(&RepositoryConfig::new(test_models::path("lookup"))).unwrap();
    assert_eq!(
        (file.get("", "").unwrap().name(), file.get("lookup", "1").unwrap().version()),
        ("lookup", "1")
    );
}

#[test]
fn a_model_that_cannot_be_served_is_a_clear_error() {
    for (file, config, part) in [
        ("unfolding", "", "set max_batch_size: 0 for a model that cannot be batched"),
        ("lookup", "max_batch_size: x", "config.pbtxt:1: "),
        ("lookup", "parameters { key: \"speed\" value { string_value: \"9\" } }", "`speed` is unknown"),
        ("lookup", DETECTION, "has no image input"),
        (
            "planar",
            &format!("{DETECTION} parameters {{ key: \"boxes_output\" value {{ string_value: \"b\" }} }}"),
            "no output `b`",
        ),
        (
            "planar",
            &format!("{DETECTION} parameters {{ key: \"labels\" value {{ string_value: \"none.txt\" }} }}"),
            "none.txt",
        ),
        (
            "planar",
            &format!(
                "{DETECTION} parameters {{ key: \"labels\" value {{ string_value: \"config.pbtxt\" }} }}"
            ),
            "scores for 2 classes",
        ),
        (
            "planar",
            &format!("{DETECTION} parameters {{ key: \"keep_classes\" value {{ string_value: \"bird\" }} }}"),
            "names `bird`",
        ),
        ("planar", "default_model_filename: \"other.onnx\"", "version 1 has no such file"),
    ] {
        let Err(error) = load_models(&[("m", file, config)]) else {
            panic!("{file} is served with {config:?}")
        };
        let error = error.to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.ends_with('.'), "{error}");
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error_or_a_reason() {
    let runtime = crate::backend::onnx::OnnxRuntime::load(Some(&test_models::library())).unwrap();
    assert!(!runtime.offers_cuda(), "scripts/setup-onnxruntime.sh sets up the library for processors");
    let folder = repository(&[("m", "lookup", "")]);
    let config = |device| RepositoryConfig { device, ..RepositoryConfig::new(folder.path()) };
    let error = load(&config(Device::Cuda(0))).err().unwrap();
    assert!(error.is_device(), "{error}");
    assert!(error.to_string().contains("built without CUDA"), "{error}");
    let model = load(&config(Device::Auto)).unwrap().get("m", "").unwrap();
    assert_eq!(model.execution_provider().as_str(), "cpu");
    assert!(model.fallback_reason().unwrap().contains("built without CUDA"));
    assert_eq!(load(&config(Device::Cpu)).unwrap().get("m", "").unwrap().fallback_reason(), None);
    let [nodes] = model.nodes() else { panic!("the CPU has all nodes: {:?}", model.nodes()) };
    let told = &model.config().parameters["execution_nodes"].string_value;
    assert_eq!(*told, format!("CPUExecutionProvider {}", nodes.nodes));
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_accepted() {
    let repository = load_models(&[("m", "lookup", "instance_group [ { count: 2 } ]")]).unwrap();
    let model = repository.get("m", "").unwrap();
    repository.shutdown();
    let request = inputs(vec![tensor("index", DataType::Int64, &[1, 1], &[1_i64])]);
    let error = model.infer(request, None).await.unwrap_err();
    assert!(matches!(error, ServingError::Unavailable(_)), "{error}");
}
