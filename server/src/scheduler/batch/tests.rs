#![allow(clippy::unwrap_used)]

use super::*;
use crate::scheduler::admission::PixelInput;
use crate::scheduler::pixels::{Layout, PixelConversion, PixelType};
use crate::tensor::TensorSpec;
use bytes::Bytes;
use proptest::prelude::*;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, dims: dims.to_vec() }
}

/// A model that takes strings and planar images of 2x1 pixels.
fn signature() -> Arc<Signature> {
    let conversion = PixelConversion::new(Layout::Nchw, PixelType::Fp32, [1.0, 2.0, 3.0], [2.0; 3]);
    let pixels = PixelInput { height: 2, width: 1, conversion };
    Arc::new(Signature {
        model: "m".into(),
        inputs: vec![
            InputSpec { tensor: spec("text", DataType::Bytes, &[1]), pixels: None },
            InputSpec { tensor: spec("images", DataType::Fp32, &[3, 2, 1]), pixels: Some(pixels) },
        ],
        outputs: vec![spec("text", DataType::Bytes, &[1]), spec("images", DataType::Fp32, &[3, 2, 1])],
        max_batch_size: 8,
    })
}

/// A request whose rows carry `texts` and images counted on from `first`.
fn request(texts: &[&str], first: u8, outputs: &[usize]) -> PreparedRequest {
    let rows = texts.len();
    let text = Tensor::from_byte_strings("text", texts).data;
    let pixels: Vec<u8> = (0..rows * 6).map(|i| first.wrapping_add(i as u8)).collect();
    let inputs = vec![
        PreparedInput { row_shape: Shape::from([1]), data: text, encoding: Encoding::Declared },
        PreparedInput { row_shape: Shape::from([3, 2, 1]), data: pixels.into(), encoding: Encoding::Pixels },
    ];
    PreparedRequest { id: String::new(), rows, inputs, outputs: outputs.to_vec() }
}

/// The outputs of a model that gives back what it is given.
fn echo(batch: &Batch<'_>) -> Vec<Tensor> {
    crate::backend::simulated::SimulatedBackend::echo(batch).unwrap()
}

#[test]
fn pixels_are_converted_on_their_way_into_the_batch_and_own_values_are_not() {
    let pixels = request(&["a"], 10, &[0, 1]);
    let mut own = request(&["b"], 0, &[0, 1]);
    own.inputs[1].data = Bytes::copy_from_slice(bytemuck::cast_slice(&[0.5_f32; 6]));
    own.inputs[1].encoding = Encoding::Declared;
    let mut buffer = BatchBuffer::new(signature());
    let batch = buffer.write(&[&pixels, &own]);
    assert_eq!((batch.rows, batch.inputs[1].shape.to_vec()), (2, vec![2, 3, 2, 1]));
    let values: &[f32] = bytemuck::cast_slice(batch.inputs[1].data);
    // Pixels 10 11 12 / 13 14 15, less 1 2 3, times 2, in planes.
    assert_eq!(values[..6], [18.0, 24.0, 18.0, 24.0, 18.0, 24.0]);
    assert_eq!(values[6..], [0.5; 6]);
}

#[test]
fn a_request_alone_is_run_where_its_bytes_lie_if_they_lie_well() {
    let mut own = request(&["b"], 0, &[0, 1]);
    own.inputs[1].encoding = Encoding::Declared;
    // An owner with the alignment of a float, and views of it that begin at one and beside one.
    let bytes = Bytes::from_owner(Floats(vec![0.5; 7]));
    for (start, in_place) in [(0, true), (4, true), (1, false)] {
        own.inputs[1].data = bytes.slice(start..start + 24);
        let mut buffer = BatchBuffer::new(signature());
        let batch = buffer.write(&[&own]);
        let [text, images] = &batch.inputs[..] else { panic!("the model has two inputs") };
        assert_eq!(text.data.as_ptr(), own.inputs[0].data.as_ptr());
        assert_eq!(images.data.as_ptr() == own.inputs[1].data.as_ptr(), in_place);
        assert_eq!(images.data, &own.inputs[1].data[..]);
        assert!(bytemuck::try_cast_slice::<u8, f32>(images.data).is_ok());
    }
    let mut buffer = BatchBuffer::new(signature());
    let copied = buffer.write(&[&own, &own]).inputs[0].data.as_ptr();
    assert_ne!(copied, own.inputs[0].data.as_ptr());
}

/// Bytes of floats.
struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[test]
fn outputs_are_views_of_one_buffer() {
    let requests = [request(&["a", "bc"], 0, &[1]), request(&["d"], 50, &[1])];
    let requests: Vec<&PreparedRequest> = requests.iter().collect();
    let mut buffer = BatchBuffer::new(signature());
    let outputs = echo(&buffer.write(&requests));
    let answers = split(&signature(), &outputs, &requests).unwrap();
    let range = outputs[1].data.as_ptr_range();
    assert_eq!(answers[0][0].data.as_ptr(), range.start);
    assert_eq!(answers[1][0].data.as_ptr_range().end, range.end);
}

#[test]
fn an_output_without_the_rows_of_its_batch_is_an_error() {
    let (signature, request) = (signature(), request(&["a", "b"], 0, &[0]));
    let mut buffer = BatchBuffer::new(Arc::clone(&signature));
    let mut outputs = echo(&buffer.write(&[&request]));
    for shape in [Shape::from([1, 1]), Shape::default()] {
        outputs[0].shape = shape;
        let error = split(&signature, &outputs, &[&request]).unwrap_err().to_string();
        assert!(error.contains("set max_batch_size: 0"), "{error}");
    }
}

#[test]
fn without_a_batch_dimension_the_whole_output_is_the_answer() {
    let mut signature = Arc::unwrap_or_clone(signature());
    signature.max_batch_size = 0;
    let (signature, request) = (Arc::new(signature), request(&["a"], 0, &[1]));
    let mut buffer = BatchBuffer::new(Arc::clone(&signature));
    let batch = buffer.write(&[&request]);
    assert_eq!(batch.inputs[1].shape.to_vec(), [3, 2, 1]);
    let outputs = echo(&batch);
    assert_eq!(split(&signature, &outputs, &[&request]).unwrap(), [vec![outputs[1].clone()]]);
}

proptest! {
    /// Through a model that gives back its inputs, every request gets exactly its own rows, whoever shares its batch,
    /// from a buffer used before for another batch.
    #[test]
    fn rows_come_back_to_their_requests(
        batches in proptest::collection::vec(
            proptest::collection::vec((proptest::collection::vec("[a-zé]{0,5}", 1..4), any::<u8>(), 0..3_usize), 1..5), 1..4),
    ) {
        let signature = signature();
        let mut buffer = BatchBuffer::new(Arc::clone(&signature));
        let alone = |request: &PreparedRequest| {
            let mut buffer = BatchBuffer::new(Arc::clone(&signature));
            let outputs = echo(&buffer.write(&[request]));
            split(&signature, &outputs, &[request]).unwrap().remove(0)
        };
        for batch in batches {
            let requests: Vec<PreparedRequest> = batch
                .iter()
                .map(|(texts, first, wanted)| {
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    request(&texts, *first, [&[0, 1][..], &[1], &[1, 0]][*wanted])
                })
                .collect();
            let requests: Vec<&PreparedRequest> = requests.iter().collect();
            let outputs = echo(&buffer.write(&requests));
            let answers = split(&signature, &outputs, &requests).unwrap();
            prop_assert_eq!(answers.len(), requests.len());
            for (request, answer) in requests.iter().zip(&answers) {
                prop_assert_eq!(answer, &alone(request));
                let text = answer.iter().find(|output| output.name == "text");
                if let Some(text) = text {
                    prop_assert_eq!(&text.data, &request.inputs[0].data);
                }
            }
        }
    }
}
