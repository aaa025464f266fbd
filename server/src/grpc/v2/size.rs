//! The memory that messages take once they are decoded, beyond their bytes on the wire.
//!
//! Tensors that come raw are parts of what was received. Everything else becomes larger: an element of `contents` has a
//! byte on the wire at least, and up to 32 in memory.

use crate::tensor::DataType;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use std::collections::HashMap;

/// Bytes that a decoded request takes besides the message that it came in.
pub(super) fn of_request(request: &ModelInferRequest) -> usize {
    let of_inputs = request.inputs.iter().map(|input| {
        let contents = input.contents.as_ref().map_or(0, of_contents);
        contents + of_parameters(&input.parameters) + list(&input.shape)
    });
    let of_outputs = request.outputs.iter().map(|output| of_parameters(&output.parameters));
    list::<InferInputTensor>(&request.inputs)
        + list::<InferRequestedOutputTensor>(&request.outputs)
        + list(&request.raw_input_contents)
        + of_parameters(&request.parameters)
        + of_inputs.sum::<usize>()
        + of_outputs.sum::<usize>()
}

/// Bytes that the typed elements of an answer take; 0 for one whose tensors are raw.
pub(super) fn of_typed_outputs(response: &ModelInferResponse) -> usize {
    response.outputs.iter().filter_map(|output| output.contents.as_ref()).map(of_contents).sum()
}

/// Bytes of the tensors that are to be made of the typed elements of `inputs`.
pub(super) fn of_tensors(inputs: &[InferInputTensor]) -> usize {
    let of_input = |input: &InferInputTensor| {
        let contents = input.contents.as_ref()?;
        let texts = contents.bytes_contents.iter().map(|text| size_of::<u32>() + text.len()).sum::<usize>();
        // One without a type is refused before anything is made of it.
        let datatype: Option<DataType> = input.datatype.parse().ok();
        Some(texts + elements(contents) * datatype?.byte_size().unwrap_or(0))
    };
    inputs.iter().filter_map(of_input).sum()
}

/// Elements of fixed length.
fn elements(contents: &InferTensorContents) -> usize {
    contents.bool_contents.len()
        + contents.int_contents.len()
        + contents.int64_contents.len()
        + contents.uint_contents.len()
        + contents.uint64_contents.len()
        + contents.fp32_contents.len()
        + contents.fp64_contents.len()
}

fn of_contents(contents: &InferTensorContents) -> usize {
    list(&contents.bool_contents)
        + list(&contents.int_contents)
        + list(&contents.int64_contents)
        + list(&contents.uint_contents)
        + list(&contents.uint64_contents)
        + list(&contents.fp32_contents)
        + list(&contents.fp64_contents)
        + list(&contents.bytes_contents)
}

fn of_parameters(parameters: &HashMap<String, InferParameter>) -> usize {
    let texts = parameters.keys().map(String::capacity).sum::<usize>();
    parameters.capacity() * size_of::<(String, InferParameter)>() + texts
}

/// What a vector has, and not only what it uses.
#[allow(clippy::ptr_arg, reason = "a slice has no capacity")]
fn list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use bytes::Bytes;
    use prost::Message as _;

    fn with(datatype: &str, contents: InferTensorContents) -> ModelInferRequest {
        let input = InferInputTensor {
            datatype: datatype.to_owned(),
            contents: Some(contents),
            ..Default::default()
        };
        let request = ModelInferRequest { inputs: vec![input], ..Default::default() };
        // As it is when it comes: what its lists have is what decoding gave them.
        ModelInferRequest::decode(request.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn typed_elements_count_what_they_are_in_memory() {
        let zeros = with("INT8", InferTensorContents { int64_contents: vec![0; 1000], ..Default::default() });
        assert!(zeros.encoded_len() < 1100, "a byte each on the wire");
        assert!(of_request(&zeros) >= 8000);
        assert_eq!(of_tensors(&zeros.inputs), 1000, "whatever they came as");
        let texts = InferTensorContents { bytes_contents: vec![Bytes::new(); 1000], ..Default::default() };
        let texts = with("BYTES", texts);
        assert!(of_request(&texts) >= 1000 * size_of::<Bytes>());
        assert_eq!(of_tensors(&texts.inputs), 4000);
    }

    #[test]
    fn raw_tensors_are_parts_of_the_message_and_empty_things_are_not_free() {
        let raw =
            ModelInferRequest { raw_input_contents: vec![vec![0; 1 << 20].into()], ..Default::default() };
        assert!(of_request(&raw) < 1000);
        let nothing =
            ModelInferRequest { inputs: vec![InferInputTensor::default(); 500], ..Default::default() };
        assert!(of_request(&nothing) > 20 * nothing.encoded_len());
        assert_eq!(of_tensors(&nothing.inputs), 0);
    }
}
