//! A row is the same whoever shares its batch, and however many threads run it.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::backend::ExecutionProvider;
use crate::backend::onnx::{OnnxBackendFactory, OnnxRuntime, SessionOptions};
use crate::scheduler::admission::{InputSpec, PixelInput};
use crate::scheduler::pixels::{Layout, PixelConversion, PixelType};
use crate::scheduler::request::InferenceRequest;
use crate::tensor::{DataType, Shape, Tensor, TensorSpec};
use crate::test_models;

fn engine(model: std::path::PathBuf, signature: &Arc<Signature>, threads: usize) -> Engine {
    let runtime = OnnxRuntime::load(Some(&test_models::library())).unwrap();
    let options = SessionOptions::new(ExecutionProvider::Cpu, 0, threads);
    let outputs = signature.outputs.iter().map(|output| output.name.to_string()).collect();
    let factory = OnnxBackendFactory { runtime, model, options, outputs };
    let parts = InstanceParts { backend: factory.create().unwrap(), factory: Arc::new(factory) };
    Engine::new(signature, parts, None)
}

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, dims: dims.to_vec() }
}

fn run(engine: &mut Engine, requests: &[&PreparedRequest]) -> Vec<Vec<Tensor>> {
    match engine.run(requests) {
        Ok(completed) => completed.answers,
        Err(Failure::Backend(error)) => panic!("{error}"),
        Err(Failure::Panic(message)) => panic!("{message}"),
    }
}

/// Batches of up to 8 rows in several requests: rows of each, and a seed for their pixels.
fn batches() -> impl Strategy<Value = Vec<(usize, u64)>> {
    proptest::collection::vec((1_usize..4, any::<u64>()), 1..5)
        .prop_filter("a batch has 8 rows at most", |batch| {
            batch.iter().map(|&(rows, _)| rows).sum::<usize>() <= 8
        })
}

/// Noise, or something with edges: kernels have other paths for values that saturate.
fn pixels(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let noise = |at: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match seed % 3 {
            0 => (state >> 56) as u8,
            1 => {
                if (at / 97).is_multiple_of(2) {
                    255
                } else {
                    0
                }
            }
            _ => (at / 900) as u8 ^ (state >> 61) as u8,
        }
    };
    (0..count).map(noise).collect()
}

/// Checks that in batches on one engine everyone gets what they get alone on the other, bit for bit.
fn check(cases: u32, signature: &Arc<Signature>, image: [i64; 3], batched: Engine, alone: Engine) {
    let (batched, alone) = (RefCell::new(batched), RefCell::new(alone));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&batches(), |batch| {
        let requests: Vec<PreparedRequest> = batch
            .into_iter()
            .map(|(rows, seed)| {
                let shape = Shape::from([rows as i64, image[0], image[1], image[2]]);
                let data = pixels(shape.element_count().unwrap(), seed).into();
                let images = Tensor { name: "images".to_owned(), datatype: DataType::Uint8, shape, data };
                signature.prepare(InferenceRequest { inputs: vec![images], ..Default::default() }).unwrap()
            })
            .collect();
        let requests: Vec<&PreparedRequest> = requests.iter().collect();
        let answers = run(&mut batched.borrow_mut(), &requests);
        prop_assert_eq!(answers.len(), requests.len());
        for (request, answer) in requests.iter().zip(&answers) {
            let expected = run(&mut alone.borrow_mut(), &[request]).remove(0);
            for (output, expected) in answer.iter().zip(&expected) {
                prop_assert_eq!((&output.name, &output.shape), (&expected.name, &expected.shape));
                prop_assert!(output.data == expected.data, "{} differs", output.name);
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_row_of_the_detector_is_the_same_in_any_batch_and_on_any_number_of_threads() {
    let signature = Arc::new(Signature {
        model: "vehicle-detector".into(),
        inputs: vec![InputSpec { tensor: spec("images", DataType::Uint8, &[300, 300, 3]), pixels: None }],
        outputs: vec![spec("boxes", DataType::Fp32, &[1917, 4]), spec("scores", DataType::Fp32, &[1917, 80])],
        max_batch_size: 8,
    });
    let model = test_models::root().join("models/vehicle-detector/1/model.onnx");
    let narrow = engine(model.clone(), &signature, 1);
    let wide = engine(model, &signature, 2);
    check(6, &signature, [300, 300, 3], narrow, wide);
}

#[test]
fn a_row_converted_on_its_way_into_the_batch_is_the_same_in_any_batch() {
    let conversion = PixelConversion::new(Layout::Nchw, PixelType::Fp32, [128.0; 3], [1.0 / 128.0; 3]);
    let pixels = PixelInput { height: 4, width: 4, conversion };
    let signature = Arc::new(Signature {
        model: "planar".into(),
        inputs: vec![InputSpec { tensor: spec("images", DataType::Fp32, &[3, 4, 4]), pixels: Some(pixels) }],
        outputs: vec![spec("boxes", DataType::Fp32, &[4, 4]), spec("scores", DataType::Fp32, &[4, 2])],
        max_batch_size: 8,
    });
    let model = test_models::path("planar");
    let (batched, alone) = (engine(model.clone(), &signature, 1), engine(model, &signature, 1));
    check(128, &signature, [4, 4, 3], batched, alone);
}
