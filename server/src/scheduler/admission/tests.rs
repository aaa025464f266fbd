#![allow(clippy::unwrap_used)]

use super::*;
use crate::scheduler::pixels::{Layout, PixelType};
use bytes::Bytes;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, dims: dims.to_vec() }
}

fn plain(name: &str, datatype: DataType, dims: &[i64]) -> InputSpec {
    InputSpec { tensor: spec(name, datatype, dims), pixels: None }
}

/// A model `m` with `inputs`, outputs `y` and `z`, and batches of up to 4 rows.
fn signature(inputs: Vec<InputSpec>) -> Signature {
    let outputs = vec![spec("y", DataType::Fp32, &[1]), spec("z", DataType::Fp32, &[1])];
    Signature { model: "m".into(), inputs, outputs, max_batch_size: 4 }
}

fn vision() -> Signature {
    let conversion = PixelConversion::new(Layout::Nchw, PixelType::Fp32, [0.0; 3], [1.0; 3]);
    let pixels = Some(PixelInput { height: 2, width: 5, conversion });
    signature(vec![InputSpec { tensor: spec("images", DataType::Fp32, &[3, 2, 5]), pixels }])
}

fn tensor(name: &str, datatype: DataType, shape: &[i64], bytes: usize) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: Shape::from(shape), data: Bytes::from(vec![0; bytes]) }
}

fn prepare(signature: &Signature, inputs: Vec<Tensor>, outputs: &[&str]) -> Result<PreparedRequest, String> {
    let outputs = outputs.iter().map(|&name| name.to_owned()).collect();
    let request = InferenceRequest { inputs, outputs, ..InferenceRequest::default() };
    signature.prepare(request).map_err(|error| {
        assert!(matches!(error, ServingError::InvalidInput(_)));
        error.to_string()
    })
}

#[test]
fn inputs_come_in_any_order_and_leave_in_the_models() {
    let signature = signature(vec![plain("a", DataType::Uint8, &[2]), plain("b", DataType::Int64, &[-1])]);
    let request = vec![tensor("b", DataType::Int64, &[3, 7], 168), tensor("a", DataType::Uint8, &[3, 2], 6)];
    let prepared = prepare(&signature, request, &["z"]).unwrap();
    assert_eq!((prepared.rows, &*prepared.outputs), (3, &[1][..]));
    let shapes: Vec<_> = prepared.inputs.iter().map(|input| input.row_shape.to_vec()).collect();
    assert_eq!(shapes, [vec![2], vec![7]]);
    assert!(prepared.inputs.iter().all(|input| input.encoding == Encoding::Declared));
}

#[test]
fn an_image_input_takes_its_own_type_or_pixels() {
    let own = prepare(&vision(), vec![tensor("images", DataType::Fp32, &[2, 3, 2, 5], 240)], &[]).unwrap();
    assert_eq!((own.rows, own.inputs[0].encoding), (2, Encoding::Declared));
    let pixels = prepare(&vision(), vec![tensor("images", DataType::Uint8, &[2, 2, 5, 3], 60)], &[]).unwrap();
    assert_eq!((pixels.rows, pixels.inputs[0].encoding), (2, Encoding::Pixels));
    assert_eq!(pixels.inputs[0].row_shape, own.inputs[0].row_shape);
    assert_eq!(pixels.outputs, [0, 1]);
}

#[test]
fn a_model_without_a_batch_dimension_takes_one_row() {
    let signature = Signature { max_batch_size: 0, ..signature(vec![plain("a", DataType::Fp32, &[2, -1])]) };
    let prepared = prepare(&signature, vec![tensor("a", DataType::Fp32, &[2, 3], 24)], &[]).unwrap();
    assert_eq!((prepared.rows, prepared.inputs[0].row_shape.to_vec()), (1, vec![2, 3]));
    assert!(prepare(&signature, vec![tensor("a", DataType::Fp32, &[1, 2, 3], 24)], &[]).is_err());
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence_that_says_what() {
    let plain = signature(vec![plain("a", DataType::Uint8, &[2]), plain("b", DataType::Fp32, &[1])]);
    let (a, b) = (tensor("a", DataType::Uint8, &[1, 2], 2), tensor("b", DataType::Fp32, &[1, 1], 4));
    let cases: Vec<(Vec<Tensor>, &[&str], &str)> = vec![
        (vec![], &[], "Input `a` of model `m` is missing."),
        (
            vec![tensor("c", DataType::Uint8, &[1, 2], 2), b.clone()],
            &[],
            "is missing (`c` is none of its inputs).",
        ),
        (vec![a.clone(), a.clone(), b.clone()], &[], "Input `a` is given more than once."),
        (
            vec![a.clone(), b.clone(), tensor("c", DataType::Fp32, &[1], 4)],
            &[],
            "has no input `c`; its inputs are `a`, `b`.",
        ),
        (
            vec![tensor("a", DataType::Int8, &[1, 2], 2), b.clone()],
            &[],
            "is UINT8 of shape [-1,2]; the request has INT8 of shape [1,2].",
        ),
        (
            vec![tensor("a", DataType::Uint8, &[1, 3], 3), b.clone()],
            &[],
            "the request has UINT8 of shape [1,3].",
        ),
        (vec![tensor("a", DataType::Uint8, &[2], 2), b.clone()], &[], "the request has UINT8 of shape [2]."),
        (vec![tensor("a", DataType::Uint8, &[-1, 2], 2), b.clone()], &[], "has no rows"),
        (
            vec![tensor("a", DataType::Uint8, &[0, 2], 0), b.clone()],
            &[],
            "Input `a` has no rows: its shape is [0,2].",
        ),
        (
            vec![tensor("a", DataType::Uint8, &[5, 2], 10), b.clone()],
            &[],
            "has 5 rows; model `m` takes at most 4 in a request",
        ),
        (
            vec![tensor("a", DataType::Uint8, &[2, 2], 4), b.clone()],
            &[],
            "Input `b` has 1 rows but input `a` has 2",
        ),
        (
            vec![tensor("a", DataType::Uint8, &[1, 2], 3), b.clone()],
            &[],
            "UINT8 of shape [1,2], is 2 bytes; the request has 3.",
        ),
        (vec![a.clone(), b.clone()], &["x"], "has no output `x`; its outputs are `y`, `z`."),
        (vec![a.clone(), b.clone()], &["y", "y"], "Output `y` is asked for more than once."),
    ];
    for (inputs, outputs, part) in cases {
        let error = prepare(&plain, inputs, outputs).unwrap_err();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    let error =
        prepare(&vision(), vec![tensor("images", DataType::Uint8, &[1, 5, 2, 3], 30)], &[]).unwrap_err();
    assert!(
        error.contains(
            "is FP32 of shape [-1,3,2,5], or UINT8 of shape [-1,2,5,3], or encoded images as BYTES of shape [-1]; the \
             request has"
        ),
        "{error}"
    );
    let error =
        prepare(&vision(), vec![tensor("images", DataType::Uint8, &[1, 2, 5, 3], 29)], &[]).unwrap_err();
    assert!(error.contains("is 30 bytes; the request has 29."), "{error}");
}

#[test]
fn bytes_and_bools_are_checked_element_by_element() {
    let signature = signature(vec![plain("s", DataType::Bytes, &[2]), plain("t", DataType::Bool, &[2])]);
    let text = |data: &[u8]| Tensor {
        data: Bytes::copy_from_slice(data),
        ..tensor("s", DataType::Bytes, &[1, 2], 0)
    };
    let flags = |data: &[u8]| Tensor {
        data: Bytes::copy_from_slice(data),
        ..tensor("t", DataType::Bool, &[1, 2], 0)
    };
    let two = [1, 0, 0, 0, b'x', 0, 0, 0, 0];
    assert!(prepare(&signature, vec![text(&two), flags(&[0, 1])], &[]).is_ok());
    for (inputs, part) in [
        (vec![text(&two[..5]), flags(&[0, 1])], "Input `s` of shape [1,2] has 1 BYTES elements."),
        (vec![text(&two[..6]), flags(&[0, 1])], "do not add up"),
        (vec![text(&two), flags(&[0, 2])], "its bytes are 0 or 1 each"),
    ] {
        let error = prepare(&signature, inputs, &[]).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_shape_too_large_to_count_is_refused() {
    let signature = signature(vec![plain("a", DataType::Fp64, &[-1, -1])]);
    let error =
        prepare(&signature, vec![tensor("a", DataType::Fp64, &[1, i64::MAX, i64::MAX], 8)], &[]).unwrap_err();
    assert!(error.contains("is too large"), "{error}");
}
