//! What it costs to write a batch of images, as they are or converted, and to split a detector's outputs.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model_serving::scheduler::assembly::Assembly;
use model_serving::scheduler::{
    InferenceRequest, InputSpec, Layout, PixelConversion, PixelInput, PixelType, Signature,
};
use model_serving::tensor::{DataType, Shape, Tensor, TensorSpec};

/// Height and width of an image.
const SIDE: i64 = 300;
/// Boxes and classes of a detector's outputs.
const BOXES: i64 = 3234;
const CLASSES: i64 = 91;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, dims: dims.to_vec() }
}

/// A detector that takes images as bytes, or planes of normalised floats.
fn detector(floats: bool) -> Arc<Signature> {
    let (layout, pixel, datatype, dims) = if floats {
        (Layout::Nchw, PixelType::Fp32, DataType::Fp32, [3, SIDE, SIDE])
    } else {
        (Layout::Nhwc, PixelType::Uint8, DataType::Uint8, [SIDE, SIDE, 3])
    };
    let (mean, scale) = ([123.675, 116.28, 103.53], [1.0 / 58.395, 1.0 / 57.12, 1.0 / 57.375]);
    let pixels = PixelInput {
        height: SIDE,
        width: SIDE,
        conversion: PixelConversion::new(layout, pixel, mean, scale),
    };
    Arc::new(Signature {
        model: "detector".into(),
        inputs: vec![InputSpec { tensor: spec("image", datatype, &dims), pixels: Some(pixels) }],
        outputs: vec![
            spec("boxes", DataType::Fp32, &[BOXES, 4]),
            spec("scores", DataType::Fp32, &[BOXES, CLASSES]),
        ],
        max_batch_size: 32,
    })
}

fn tensor(name: &str, datatype: DataType, dims: &[i64]) -> Tensor {
    let shape = Shape::from(dims);
    let bytes = shape.element_count().unwrap_or(0) * datatype.byte_size().unwrap_or(0);
    let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    Tensor { name: name.to_owned(), datatype, shape, data: data.into() }
}

/// A batch of `rows` images, each from a caller of its own.
fn batch(signature: &Arc<Signature>, rows: i64) -> Assembly {
    let image = || InferenceRequest {
        inputs: vec![tensor("image", DataType::Uint8, &[1, SIDE, SIDE, 3])],
        ..InferenceRequest::default()
    };
    Assembly::new(signature, (0..rows).map(|_| image()).collect()).expect("the images fit the model")
}

fn assembly(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("assembly");
    for (name, floats) in [("u8", false), ("f32", true)] {
        for rows in [1, 8] {
            group.throughput(Throughput::Bytes((rows * SIDE * SIDE * 3) as u64));
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                let mut batch = batch(&detector(floats), rows);
                bencher.iter(|| black_box(batch.write()));
            });
        }
    }
    group.finish();
}

fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    for rows in [1, 8] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::new("detector", rows), |bencher| {
            let batch = batch(&detector(false), rows);
            let outputs = [
                tensor("boxes", DataType::Fp32, &[rows, BOXES, 4]),
                tensor("scores", DataType::Fp32, &[rows, BOXES, CLASSES]),
            ];
            bencher.iter(|| black_box(batch.split(&outputs).expect("the outputs have the batch's rows")));
        });
    }
    group.finish();
}

criterion_group!(benches, assembly, split);
criterion_main!(benches);
