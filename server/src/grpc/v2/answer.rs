//! Outputs as the protocol's messages have them: raw, or as typed elements.

use std::collections::HashMap;

use super::codec::{self, invalid};
use crate::error::ServingError;
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::inference::{Answer, AnsweredOutput};
use crate::repository::ModelVersion;
use crate::tensor::{DataType, Tensor};
use convoy_proto::inference::model_infer_response::InferOutputTensor;
use convoy_proto::inference::{InferTensorContents, ModelInferResponse};
use prost::Message as _;

/// About how many bytes [`message`] goes through: raw outputs are not looked at.
pub(super) fn cost(answer: &Answer) -> usize {
    let typed = answer.outputs.iter().filter(|output| output.binary == Some(false));
    typed.map(|output| output.tensor.data.len()).sum()
}

/// The message that `answer` is. Takes time when its outputs are typed: run it through
/// [`Offload`](crate::inference::offload::Offload), with [`cost`].
///
/// The data is in `raw_output_contents`. It is in the `contents` of each output when the request's parameter
/// `binary_data_output` is false, or `binary_data` of all outputs that it names: one message has all of its data in
/// one of them, since clients count the entries of `raw_output_contents`.
///
/// # Errors
/// `InvalidInput` when some outputs are wanted raw and others not, or elements of a type that has no field; `TooLarge`
/// for an answer over the limit of messages.
pub(super) fn message(model: &ModelVersion, answer: Answer) -> Result<ModelInferResponse, ServingError> {
    let Answer { id, parameters, outputs } = answer;
    let is_raw = |output: &AnsweredOutput| output.binary.unwrap_or(true);
    let raw = outputs.iter().all(is_raw);
    if !raw && outputs.iter().any(is_raw) {
        return Err(invalid(
            "Some outputs are asked for with `binary_data` false and others are not: over gRPC an answer has all of \
             its outputs in one of the two forms."
                .to_owned(),
        ));
    }
    let mut message = ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        id,
        parameters: codec::to_proto(parameters),
        ..Default::default()
    };
    for AnsweredOutput { tensor, .. } in outputs {
        let contents = if raw { None } else { Some(contents(&tensor)?) };
        let Tensor { name, datatype, shape, data } = tensor;
        message.outputs.push(InferOutputTensor {
            name,
            datatype: datatype.as_str().to_owned(),
            shape: shape.into_dims(),
            parameters: HashMap::new(),
            contents,
        });
        if raw {
            message.raw_output_contents.push(data);
        }
    }
    let bytes = message.encoded_len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(ServingError::TooLarge(format!(
            "The answer has {bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES} bytes: ask for fewer rows or \
             outputs."
        )));
    }
    Ok(message)
}

/// The elements of `tensor` in the field of their type.
fn contents(tensor: &Tensor) -> Result<InferTensorContents, ServingError> {
    let data = &*tensor.data;
    let mut contents = InferTensorContents::default();
    match tensor.datatype {
        DataType::Bool => contents.bool_contents = data.iter().map(|&byte| byte != 0).collect(),
        DataType::Int8 => contents.int_contents = each(data, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::Int16 => contents.int_contents = each(data, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::Int32 => contents.int_contents = each(data, i32::from_le_bytes),
        DataType::Int64 => contents.int64_contents = each(data, i64::from_le_bytes),
        DataType::Uint8 => contents.uint_contents = each(data, |bytes| u8::from_le_bytes(bytes).into()),
        DataType::Uint16 => contents.uint_contents = each(data, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::Uint32 => contents.uint_contents = each(data, u32::from_le_bytes),
        DataType::Uint64 => contents.uint64_contents = each(data, u64::from_le_bytes),
        DataType::Fp32 => contents.fp32_contents = each(data, f32::from_le_bytes),
        DataType::Fp64 => contents.fp64_contents = each(data, f64::from_le_bytes),
        DataType::Bytes => contents.bytes_contents = tensor.byte_strings().unwrap_or_default(),
        DataType::Fp16 | DataType::Bf16 => {
            return Err(invalid(format!(
                "Output `{}` is {}, which `contents` has no field for: leave out `binary_data_output`.",
                tensor.name, tensor.datatype
            )));
        }
    }
    Ok(contents)
}

fn each<T, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tensor::Shape;
    use bytes::Bytes;
    use convoy_proto::inference::model_infer_request::InferInputTensor;
    use proptest::prelude::*;

    fn typed(datatype: DataType) -> bool {
        !matches!(datatype, DataType::Fp16 | DataType::Bf16)
    }

    fn tensors() -> impl Strategy<Value = Tensor> {
        let types: Vec<DataType> = DataType::ALL.into_iter().filter(|datatype| typed(*datatype)).collect();
        let parts = (proptest::sample::select(types), proptest::collection::vec(any::<[u8; 8]>(), 0..9));
        parts.prop_map(|(datatype, words)| match datatype.byte_size() {
            None => {
                Tensor::from_byte_strings("x", words.iter().map(|word| &word[..usize::from(word[0] % 9)]))
            }
            Some(size) => {
                let fit = |byte: u8| if datatype == DataType::Bool { byte % 2 } else { byte };
                let data: Vec<u8> =
                    words.iter().flat_map(|word| word[..size].iter().map(|&b| fit(b))).collect();
                let shape = Shape::from([words.len() as i64]);
                Tensor { name: "x".to_owned(), datatype, shape, data: Bytes::from(data) }
            }
        })
    }

    proptest! {
        #[test]
        fn typed_elements_are_read_back_bit_for_bit(tensor in tensors()) {
            let input = InferInputTensor {
                name: tensor.name.clone(),
                datatype: tensor.datatype.as_str().to_owned(),
                shape: tensor.shape.to_vec(),
                contents: Some(contents(&tensor).unwrap()),
                ..Default::default()
            };
            prop_assert_eq!(codec::inputs(vec![input], vec![]).unwrap(), vec![tensor]);
        }
    }

    #[test]
    fn a_type_without_a_field_is_only_raw() {
        for datatype in [DataType::Fp16, DataType::Bf16] {
            let tensor =
                Tensor { name: "x".to_owned(), datatype, shape: Shape::from([0]), data: Bytes::new() };
            assert!(contents(&tensor).unwrap_err().to_string().contains("no field"));
        }
    }
}
