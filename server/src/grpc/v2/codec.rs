//! Tensors between the protocol's messages and ours.

use crate::detection::Detection;
use crate::error::ServingError;
use crate::repository::DETECTIONS_OUTPUT;
use crate::tensor::{DataType, Shape, Tensor};
use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::model_infer_response::InferOutputTensor;
use convoy_proto::inference::{InferParameter, InferTensorContents, ModelInferResponse};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// The parameters of a request or of one of its tensors.
pub(super) type Parameters = HashMap<String, InferParameter>;

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
        if given.iter().sum::<usize>() != elements {
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

/// Adds `tensor` to the answer, its data raw.
pub(super) fn push_output(response: &mut ModelInferResponse, tensor: Tensor) {
    response.outputs.push(InferOutputTensor {
        name: tensor.name,
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.into_dims(),
        parameters: HashMap::new(),
        contents: None,
    });
    response.raw_output_contents.push(tensor.data);
}

/// The output `detections`: for each row a JSON array of what was found, boxes in 0..1 of the tensor.
pub(super) fn detections_output(rows: &[Vec<Detection>]) -> Result<Tensor, ServingError> {
    let texts: Result<Vec<Vec<u8>>, _> = rows
        .iter()
        .map(|row| serde_json::to_vec(&row.iter().map(DetectionJson::from).collect::<Vec<_>>()))
        .collect();
    let texts = texts.map_err(|error| {
        ServingError::Internal(format!("The detections cannot be written as JSON: {error}."))
    })?;
    Ok(Tensor::from_byte_strings(DETECTIONS_OUTPUT, texts))
}

#[derive(Serialize)]
struct DetectionJson<'a> {
    class_name: &'a str,
    confidence: f32,
    bbox: BoundingBoxJson,
}

#[derive(Serialize)]
struct BoundingBoxJson {
    x_min: f32,
    y_min: f32,
    x_max: f32,
    y_max: f32,
}

impl<'a> From<&'a Detection> for DetectionJson<'a> {
    fn from(found: &'a Detection) -> Self {
        let [x_min, y_min, x_max, y_max] = found.bbox;
        let bbox = BoundingBoxJson { x_min, y_min, x_max, y_max };
        Self { class_name: &found.class_name, confidence: found.confidence, bbox }
    }
}

/// The text of parameter `name`; empty when it is absent.
pub(super) fn text_parameter<'a>(parameters: &'a Parameters, name: &str) -> Result<&'a str, ServingError> {
    match parameters.get(name).and_then(|parameter| parameter.parameter_choice.as_ref()) {
        None => Ok(""),
        Some(ParameterChoice::StringParam(text)) => Ok(text),
        Some(_) => Err(invalid(format!("The parameter `{name}` is not a text: send it as string_param."))),
    }
}

/// The parameter `timeout`, in microseconds as Triton has it; 0 is none.
pub(super) fn timeout_parameter(parameters: &Parameters) -> Result<Option<Duration>, ServingError> {
    let microseconds =
        match parameters.get("timeout").and_then(|parameter| parameter.parameter_choice.as_ref()) {
            None => return Ok(None),
            Some(ParameterChoice::Int64Param(value)) => u64::try_from(*value).ok(),
            Some(ParameterChoice::Uint64Param(value)) => Some(*value),
            Some(_) => None,
        };
    match microseconds {
        None => Err(invalid(
            "The parameter `timeout` is no number of microseconds: send it as int64_param, 0 or more."
                .to_owned(),
        )),
        Some(0) => Ok(None),
        Some(value) => Ok(Some(Duration::from_micros(value))),
    }
}

/// A number as a parameter of an answer.
pub(super) fn number(value: f64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(value)) }
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
    fn the_timeout_counts_microseconds() {
        let with = |choice| {
            let parameter = InferParameter { parameter_choice: Some(choice) };
            timeout_parameter(&HashMap::from([("timeout".to_owned(), parameter)]))
        };
        assert_eq!(with(ParameterChoice::Int64Param(1500)), Ok(Some(Duration::from_micros(1500))));
        assert_eq!(with(ParameterChoice::Int64Param(0)), Ok(None));
        assert!(with(ParameterChoice::Int64Param(-1)).is_err());
        assert!(with(ParameterChoice::StringParam("1s".to_owned())).is_err());
    }

    #[test]
    fn detections_are_one_json_array_per_row() {
        let found = Detection { class_name: "bus".into(), confidence: 0.5, bbox: [0.0, 0.25, 0.5, 1.0] };
        let output = detections_output(&[vec![found], vec![]]).unwrap();
        assert_eq!(
            (output.name.as_str(), output.datatype, &output.shape[..]),
            ("detections", DataType::Bytes, &[2][..])
        );
        let rows = output.byte_strings().unwrap();
        let expected = r#"[{"class_name":"bus","confidence":0.5,"bbox":{"x_min":0.0,"y_min":0.25,"x_max":0.5,"y_max":1.0}}]"#;
        assert_eq!(rows, [expected, "[]"]);
    }
}
