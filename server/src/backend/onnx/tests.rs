#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::BatchInput;
use crate::tensor::{DataType, Shape};
use crate::test_models;

fn cpu() -> SessionOptions {
    SessionOptions::new(ExecutionProvider::Cpu, 0, 1)
}

fn runtime() -> OnnxRuntime {
    OnnxRuntime::load(Some(&test_models::library())).unwrap()
}

/// Eight bytes aligned for any element, of which the first are `bytes`.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

#[test]
fn a_model_file_tells_its_inputs_and_outputs() {
    let session = runtime().inspect(&test_models::path("types")).unwrap();
    let of_file: Vec<_> = session.inputs().iter().map(|spec| (spec.datatype, spec.dims.clone())).collect();
    let mut expected = DataType::ALL.map(|datatype| (datatype, vec![-1, 2]));
    let key = |entry: &(DataType, Vec<i64>)| entry.0.as_str();
    let mut of_file = of_file;
    of_file.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(of_file, expected);
    assert_eq!(session.outputs().len(), 14);
}

#[test]
fn every_data_type_goes_in_and_comes_out() {
    every_data_type_through(runtime().open(&test_models::path("types"), &cpu()).unwrap());
}

/// In common memory, as on a machine without a GPU.
fn bound(model: &str) -> RawSession {
    let mut session = runtime().open(&test_models::path(model), &cpu()).unwrap();
    session.bind(HostMemory { pinned_inputs: None, pinned_outputs: None, gpu: None }).unwrap();
    session
}

#[test]
fn every_data_type_goes_in_and_comes_out_of_bound_memory() {
    every_data_type_through(bound("types"));
}

fn every_data_type_through(mut session: RawSession) {
    let values: Vec<(String, DataType, Vec<u8>)> = DataType::ALL
        .into_iter()
        .map(|datatype| {
            let data = match datatype {
                DataType::Bool => vec![0, 1, 1, 0],
                DataType::Bytes => {
                    Tensor::from_byte_strings("", ["", "ä", "long enough for the heap", "x"]).data.to_vec()
                }
                other => (0..other.byte_size().unwrap() * 4).map(|i| i as u8 * 3).collect(),
            };
            (datatype.as_str().to_lowercase(), datatype, data)
        })
        .collect();
    let buffers: Vec<Vec<u64>> = values.iter().map(|(.., data)| aligned(data)).collect();
    let inputs = values.iter().zip(&buffers).map(|((name, datatype, data), buffer)| BatchInput {
        name,
        datatype: *datatype,
        shape: Shape::from([2, 2]),
        data: &bytemuck::cast_slice(buffer)[..data.len()],
    });
    let outputs = session.infer(&Batch { rows: 2, inputs: inputs.collect() }).unwrap();
    assert_eq!(outputs.len(), values.len());
    for (name, datatype, data) in values {
        let output = outputs.iter().find(|output| output.name == format!("{name}_out")).unwrap();
        assert_eq!(
            (output.datatype, output.shape.to_vec(), &output.data[..]),
            (datatype, vec![2, 2], &data[..]),
            "{name}"
        );
    }
}

#[test]
fn an_output_outlives_its_session() {
    let mut session = runtime().open(&test_models::path("unbatched"), &cpu()).unwrap();
    let buffer = aligned(bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0]));
    let input = BatchInput {
        name: "x",
        datatype: DataType::Fp32,
        shape: Shape::from([3]),
        data: &bytemuck::cast_slice(&buffer)[..12],
    };
    let outputs = session.infer(&Batch { rows: 1, inputs: vec![input] }).unwrap();
    drop(session);
    assert_eq!(bytemuck::cast_slice::<u8, f32>(&outputs[0].data), [2.0, 4.0, 6.0]);
}

#[test]
fn a_failing_run_is_an_error_and_the_session_goes_on() {
    let plain = runtime().open(&test_models::path("lookup"), &cpu()).unwrap();
    for session in [plain, bound("lookup")] {
        fails_and_goes_on(session);
    }
}

fn fails_and_goes_on(mut session: RawSession) {
    let mut run = |index: i64| {
        let buffer = [index];
        let data = bytemuck::cast_slice(&buffer);
        let input = BatchInput { name: "index", datatype: DataType::Int64, shape: Shape::from([1, 1]), data };
        session.infer(&Batch { rows: 1, inputs: vec![input] }).map(|outputs| outputs[0].data.clone())
    };
    assert!(run(9).unwrap_err().to_string().contains("indices element out of data bounds"));
    assert_eq!(run(2).unwrap()[..], 20_f32.to_le_bytes());
}

#[test]
fn bound_memory_is_used_again_and_what_was_given_stays_what_it_was() {
    let (mut plain, mut bound) =
        (runtime().open(&test_models::path("lookup"), &cpu()).unwrap(), bound("lookup"));
    let mut given = Vec::new();
    // Sizes come and go, as batches do.
    for rows in [1_i64, 4, 2, 4, 1, 3] {
        let indices: Vec<i64> = (0..rows).map(|row| (row + rows) % 3).collect();
        let run = |session: &mut RawSession| {
            let data = bytemuck::cast_slice(&indices);
            let input =
                BatchInput { name: "index", datatype: DataType::Int64, shape: Shape::from([rows, 1]), data };
            session.infer(&Batch { rows: rows as usize, inputs: vec![input] }).unwrap()
        };
        given.push((run(&mut bound), run(&mut plain)));
    }
    drop((plain, bound));
    for (bound, plain) in given {
        assert_eq!(bound, plain);
    }
}

#[test]
fn the_parts_of_a_run_are_timed_where_there_are_copies() {
    let indices = [1_i64, 2];
    let data = bytemuck::cast_slice(&indices);
    let input = BatchInput { name: "index", datatype: DataType::Int64, shape: Shape::from([2, 1]), data };
    let batch = Batch { rows: 2, inputs: vec![input] };
    let mut plain = runtime().open(&test_models::path("lookup"), &cpu()).unwrap();
    assert_eq!(plain.time_parts(&batch).unwrap(), None);
    let mut bound = bound("lookup");
    let parts = bound.time_parts(&batch).unwrap().unwrap();
    assert!(parts.compute > std::time::Duration::ZERO, "{parts:?}");
    assert_eq!(bound.infer(&batch).unwrap(), plain.infer(&batch).unwrap(), "nothing of it stays bound");
}

#[test]
fn memory_that_is_not_there_cannot_be_bound() {
    let mut session = runtime().open(&test_models::path("lookup"), &cpu()).unwrap();
    assert!(
        session.bind(HostMemory { pinned_inputs: Some(0), pinned_outputs: Some(0), gpu: Some(0) }).is_err()
    );
    fails_and_goes_on(session);
}

#[test]
fn the_nodes_of_a_graph_are_counted_by_provider() {
    let open = |graph| {
        let mut options = cpu();
        options.acceleration.graph = graph;
        let session = runtime().open(&test_models::path("types"), &options).unwrap();
        session.nodes().to_vec()
    };
    let [nodes] = &open(GraphOptimization::Disabled)[..] else { panic!("the CPU has all of them") };
    assert_eq!(nodes.provider, "CPUExecutionProvider");
    // One for each data type.
    assert!(nodes.nodes >= DataType::ALL.len(), "{nodes:?}");
    let [optimized] = &open(GraphOptimization::All)[..] else { panic!("the CPU has all of them") };
    assert!(optimized.nodes <= nodes.nodes, "{optimized:?}");
}

#[test]
fn strings_that_are_not_utf8_are_an_error() {
    let mut session = runtime().open(&test_models::path("types"), &cpu()).unwrap();
    let data = Tensor::from_byte_strings("", [[0xff_u8]]).data;
    let input =
        BatchInput { name: "bytes", datatype: DataType::Bytes, shape: Shape::from([1, 1]), data: &data };
    let error = session.infer(&Batch { rows: 1, inputs: vec![input] }).unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn what_is_no_model_is_an_error() {
    let error = runtime().open(Path::new(file!()), &cpu()).unwrap_err();
    assert!(!error.to_string().is_empty());
    let mut session = runtime().open(&test_models::path("types"), &cpu()).unwrap();
    assert!(session.select_outputs(&["absent".to_owned()]).is_err());
}

#[test]
fn a_provider_that_cannot_be_had_is_an_error_and_not_another_provider() {
    let runtime = runtime();
    if runtime.offers_cuda() {
        // A library with CUDA: whether a GPU is there is for the machine to say.
        return;
    }
    let options = SessionOptions { provider: ExecutionProvider::Cuda, ..cpu() };
    let error = runtime.open(&test_models::path("lookup"), &options).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("cuda"), "{error}");
    let options = SessionOptions { provider: ExecutionProvider::TensorRt, ..cpu() };
    let error = runtime.open(&test_models::path("lookup"), &options).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("tensorrt"), "{error}");
}

#[test]
fn a_process_has_one_library() {
    let first = runtime();
    let error = OnnxRuntime::load(Some(Path::new("/another/libonnxruntime.so"))).unwrap_err().to_string();
    assert!(error.contains("can load only one"), "{error}");
    assert_eq!(first.library, runtime().library);
}
