//! The inputs and parameters of the protocol's messages as ours.

use crate::error::ServingError;
use crate::inference::{Parameter, Parameters};
use crate::tensor::{DataType, Shape, Tensor};
use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::{InferParameter, InferTensorContents};
use std::collections::HashMap;

/// The inputs of a request. Their data is in `raw`, one entry for each input, or in their `contents`; never both.
pub(super) fn inputs(tensors: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, ServingError> {
    if !raw.is_empty() && raw.len() != tensors.len() {
        return Err(invalid(format!(
            "raw_input_contents has {} entries for {} inputs: send one for each, or none and use `contents`.",
            raw.len(),
            tensors.len()
        )));
    }
    let mut raw = raw.into_iter();
    tensors.into_iter().map(|tensor| input(tensor, raw.next())).collect()
}

fn input(tensor: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, ServingError> {
    let name = tensor.name;
    if tensor.parameters.contains_key("shared_memory_region") {
        return Err(invalid(format!(
            "Input `{name}` is in shared memory, which is not supported: send its data."
        )));
    }
    let datatype: DataType =
        tensor.datatype.parse().map_err(|reason| invalid(format!("Input `{name}`: {reason}")))?;
    let shape = Shape::from(tensor.shape);
    let Some(count) = shape.element_count() else {
        return Err(invalid(format!("Input `{name}` has the shape {shape}, which no tensor can have.")));
    };
    // Some clients always set the field, if to nothing.
    let contents = tensor.contents.filter(|contents| *contents != InferTensorContents::default());
    let data = match (raw, contents) {
        (Some(_), Some(_)) => {
            return Err(invalid(format!(
                "Input `{name}` has `contents` beside raw_input_contents: send the data in one of them."
            )));
        }
        (Some(raw), None) => raw,
        (None, contents) => typed(&name, datatype, count, contents.unwrap_or_default())?,
    };
    Ok(Tensor { name, datatype, shape, data })
}

/// `contents` as the little-endian bytes of `count` elements.
///
/// Source: Open Inference Protocol, `InferTensorContents`: which field holds which data type.
fn typed(
    name: &str,
    datatype: DataType,
    count: usize,
    contents: InferTensorContents,
) -> Result<Bytes, ServingError> {
    let given = [
        contents.bool_contents.len(),
        contents.int_contents.len(),
        contents.int64_contents.len(),
        contents.uint_contents.len(),
        contents.uint64_contents.len(),
        contents.fp32_contents.len(),
        contents.fp64_contents.len(),
        contents.bytes_contents.len(),
    ];
    let field = |data: Option<Bytes>, field: &str, elements: usize| {
        let sent = given.iter().sum::<usize>();
        if sent == 0 && count > 0 {
            return Err(invalid(format!(
                "Input `{name}` comes without its elements: send them in raw_input_contents, or in `{field}` of its contents."
            )));
        }
        if sent != elements {
            return Err(invalid(format!(
                "Input `{name}` is {datatype}: send its elements in `{field}` only."
            )));
        }
        if elements != count {
            return Err(invalid(format!(
                "Input `{name}` has {elements} elements in `{field}`, its shape has {count}."
            )));
        }
        data.ok_or_else(|| invalid(format!("Input `{name}` has an element that is no {datatype}.")))
    };
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = &contents;
    match datatype {
        DataType::Bool => field(each(bool_contents, |v| Some([u8::from(v)])), "bool_contents", given[0]),
        DataType::Int8 => {
            field(each(int_contents, |v| i8::try_from(v).ok().map(i8::to_le_bytes)), "int_contents", given[1])
        }
        DataType::Int16 => field(
            each(int_contents, |v| i16::try_from(v).ok().map(i16::to_le_bytes)),
            "int_contents",
            given[1],
        ),
        DataType::Int32 => field(each(int_contents, |v| Some(v.to_le_bytes())), "int_contents", given[1]),
        DataType::Int64 => field(each(int64_contents, |v| Some(v.to_le_bytes())), "int64_contents", given[2]),
        DataType::Uint8 => field(
            each(uint_contents, |v| u8::try_from(v).ok().map(u8::to_le_bytes)),
            "uint_contents",
            given[3],
        ),
        DataType::Uint16 => field(
            each(uint_contents, |v| u16::try_from(v).ok().map(u16::to_le_bytes)),
            "uint_contents",
            given[3],
        ),
        DataType::Uint32 => field(each(uint_contents, |v| Some(v.to_le_bytes())), "uint_contents", given[3]),
        DataType::Uint64 => {
            field(each(uint64_contents, |v| Some(v.to_le_bytes())), "uint64_contents", given[4])
        }
        DataType::Fp32 => field(each(fp32_contents, |v| Some(v.to_le_bytes())), "fp32_contents", given[5]),
        DataType::Fp64 => field(each(fp64_contents, |v| Some(v.to_le_bytes())), "fp64_contents", given[6]),
        DataType::Bytes => {
            let data = Tensor::from_byte_strings(name, bytes_contents).data;
            field(Some(data), "bytes_contents", given[7])
        }
        DataType::Fp16 | DataType::Bf16 => Err(invalid(format!(
            "Input `{name}` is {datatype}, which `contents` has no field for: send it in raw_input_contents."
        ))),
    }
}

fn each<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> Option<[u8; N]>) -> Option<Bytes> {
    let mut data = BytesMut::with_capacity(values.len() * N);
    for &value in values {
        data.put_slice(&bytes(value)?);
    }
    Some(data.freeze())
}

/// Parameters as they came; those without a value are as good as absent.
pub(super) fn parameters(given: HashMap<String, InferParameter>) -> Parameters {
    let value = |parameter: InferParameter| {
        Some(match parameter.parameter_choice? {
            ParameterChoice::BoolParam(value) => Parameter::Bool(value),
            ParameterChoice::Int64Param(value) => Parameter::Int(value),
            ParameterChoice::StringParam(value) => Parameter::Text(value),
            ParameterChoice::DoubleParam(value) => Parameter::Double(value),
            ParameterChoice::Uint64Param(value) => Parameter::Uint(value),
        })
    };
    given.into_iter().filter_map(|(name, parameter)| Some((name, value(parameter)?))).collect()
}

/// Parameters of an answer.
pub(super) fn to_proto(parameters: Parameters) -> HashMap<String, InferParameter> {
    let value = |value| match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(value),
        Parameter::Int(value) => ParameterChoice::Int64Param(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
    };
    let parameters = parameters.into_iter();
    parameters.map(|(name, v)| (name, InferParameter { parameter_choice: Some(value(v)) })).collect()
}

pub(super) fn invalid(sentence: String) -> ServingError {
    ServingError::InvalidInput(sentence)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tensor(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            contents,
            ..Default::default()
        }
    }

    fn sentence(result: Result<Vec<Tensor>, ServingError>) -> String {
        match result.unwrap_err() {
            ServingError::InvalidInput(sentence) => sentence,
            other => panic!("{other:?} is not the caller's fault"),
        }
    }

    #[test]
    fn typed_contents_become_little_endian_bytes() {
        let small = InferTensorContents { uint_contents: vec![1, 255], ..Default::default() };
        let read = inputs(vec![tensor("UINT8", &[2], Some(small.clone()))], vec![]).unwrap();
        assert_eq!(&read[0].data[..], [1, 255]);
        let read = inputs(vec![tensor("UINT16", &[2], Some(small))], vec![]).unwrap();
        assert_eq!(&read[0].data[..], [1, 0, 255, 0]);
        let signed = InferTensorContents { int_contents: vec![-2], ..Default::default() };
        let read = inputs(vec![tensor("INT32", &[1, 1], Some(signed))], vec![]).unwrap();
        assert_eq!(&read[0].data[..], (-2_i32).to_le_bytes());
        let float = InferTensorContents { fp32_contents: vec![0.5], ..Default::default() };
        let read = inputs(vec![tensor("FP32", &[1], Some(float))], vec![]).unwrap();
        assert_eq!(&read[0].data[..], 0.5_f32.to_le_bytes());
        let words =
            InferTensorContents { bytes_contents: vec!["ab".into(), "".into()], ..Default::default() };
        let read = inputs(vec![tensor("BYTES", &[2], Some(words))], vec![]).unwrap();
        assert_eq!(read[0].byte_strings().unwrap(), ["ab", ""]);
    }

    #[test]
    fn raw_data_is_taken_as_it_is() {
        let raw = Bytes::from_static(&[1, 2, 3]);
        let read = inputs(vec![tensor("UINT8", &[3], None)], vec![raw.clone()]).unwrap();
        assert_eq!(read[0].data.as_ptr(), raw.as_ptr(), "no copy");
    }

    #[test]
    fn what_cannot_be_read_is_said_in_a_sentence() {
        let contents = || Some(InferTensorContents { uint_contents: vec![1, 256], ..Default::default() });
        let raw = || vec![Bytes::from_static(&[1, 2])];
        let cases = [
            (tensor("UINT8", &[2], contents()), raw(), "in one of them"),
            (tensor("UINT8", &[2], None), vec![raw().remove(0), raw().remove(0)], "2 entries for 1 inputs"),
            (tensor("UINT8", &[2], contents()), vec![], "no UINT8"),
            (tensor("UINT16", &[3], contents()), vec![], "2 elements"),
            (tensor("INT8", &[2], contents()), vec![], "`int_contents` only"),
            (tensor("INT8", &[2], None), vec![], "raw_input_contents, or in `int_contents`"),
            (tensor("FP16", &[2], None), vec![], "raw_input_contents"),
            (tensor("float", &[2], None), raw(), "no data type"),
            (tensor("UINT8", &[-1], None), raw(), "no tensor can have"),
            (tensor("UINT8", &[i64::MAX, 3], None), raw(), "no tensor can have"),
        ];
        for (tensor, raw, expected) in cases {
            let sentence = sentence(inputs(vec![tensor], raw));
            assert!(sentence.contains(expected), "{sentence:?} does not say {expected:?}");
        }
    }

    #[test]
    fn parameters_come_back() {
        let all = [
            Parameter::Bool(true),
            Parameter::Int(-1),
            Parameter::Uint(u64::MAX),
            Parameter::Double(0.5),
            Parameter::Text("x".to_owned()),
        ];
        for value in all {
            let one: Parameters = [("p".to_owned(), value)].into_iter().collect();
            assert_eq!(parameters(to_proto(one.clone())), one);
        }
        let none = HashMap::from([("p".to_owned(), InferParameter { parameter_choice: None })]);
        assert_eq!(parameters(none), Parameters::default());
    }
}
