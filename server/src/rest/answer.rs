//! The body of an inference's answer: JSON, followed by the bytes of the outputs that are wanted in binary.

use super::elements;
use crate::error::ServingError;
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::inference::{Answer, AnsweredOutput, Parameter};
use crate::tensor::Shape;
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use std::fmt::Write as _;

/// A body in parts, so that no tensor is copied.
#[derive(Debug)]
pub(super) struct AnswerBody {
    /// The JSON, then each binary output.
    pub(super) parts: Vec<Bytes>,
    /// Whether there is any binary output: then the JSON's length is to be said.
    pub(super) binary: bool,
    /// Bytes of them that are not those of a batch's outputs.
    pub(super) own_bytes: usize,
}

/// About how many bytes writing `answer` goes through.
pub(super) fn cost(answer: &Answer) -> usize {
    let in_json = answer.outputs.iter().filter(|output| !output.binary.unwrap_or(false));
    in_json.map(|output| output.tensor.data.len()).sum()
}

/// Writes `answer` of a version of a model. An output is JSON unless it is wanted in binary.
///
/// # Errors
/// `InvalidInput` for what JSON cannot carry, `TooLarge` for a body over the limit.
pub(super) fn write(model: &str, version: &str, answer: Answer) -> Result<AnswerBody, ServingError> {
    let Answer { id, parameters, outputs } = answer;
    let mut json = br#"{"model_name":"#.to_vec();
    put(&mut json, model)?;
    json.extend_from_slice(br#","model_version":"#);
    put(&mut json, version)?;
    if !id.is_empty() {
        json.extend_from_slice(br#","id":"#);
        put(&mut json, &id)?;
    }
    json.extend_from_slice(br#","parameters":"#);
    put(&mut json, &ParametersJson(parameters.into_iter().collect()))?;
    json.extend_from_slice(br#","outputs":["#);
    let mut parts = vec![Bytes::new()];
    let (mut bytes, mut own_bytes) = (0, 0);
    for (at, AnsweredOutput { tensor, binary, own }) in outputs.into_iter().enumerate() {
        json.extend_from_slice(if at == 0 { br#"{"name":"# } else { br#",{"name":"# });
        put(&mut json, &tensor.name)?;
        json.extend_from_slice(br#","datatype":"#);
        put(&mut json, tensor.datatype.as_str())?;
        json.extend_from_slice(br#","shape":"#);
        put(&mut json, Shape::dims(&tensor.shape))?;
        if binary.unwrap_or(false) {
            let size = tensor.data.len();
            put_text(&mut json, format_args!(r#","parameters":{{"binary_data_size":{size}}}}}"#));
            bytes += size;
            own_bytes += if own { size } else { 0 };
            parts.push(tensor.data);
        } else {
            json.extend_from_slice(br#","data":"#);
            elements::write(&tensor, &mut json).map_err(|clause| {
                ServingError::InvalidInput(format!(
                    "Output `{}` {clause}: ask for it with the parameter `binary_data`.",
                    tensor.name
                ))
            })?;
            json.push(b'}');
        }
        if bytes + json.len() > MAX_MESSAGE_BYTES {
            return Err(ServingError::TooLarge(format!(
                "The answer has more than the limit of {MAX_MESSAGE_BYTES} bytes: ask for fewer rows or outputs."
            )));
        }
    }
    json.extend_from_slice(b"]}");
    let binary = parts.len() > 1;
    own_bytes += json.len();
    parts[0] = json.into();
    Ok(AnswerBody { parts, binary, own_bytes })
}

fn put<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> Result<(), ServingError> {
    serde_json::to_writer(json, value)
        .map_err(|error| ServingError::Internal(format!("The answer cannot be written as JSON: {error}.")))
}

fn put_text(json: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let mut written = String::new();
    // Writing to a String cannot fail.
    let _ = written.write_fmt(text);
    json.extend_from_slice(written.as_bytes());
}

struct ParametersJson(Vec<(String, Parameter)>);

impl Serialize for ParametersJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            match value {
                Parameter::Bool(value) => map.serialize_entry(name, value)?,
                Parameter::Int(value) => map.serialize_entry(name, value)?,
                Parameter::Uint(value) => map.serialize_entry(name, value)?,
                Parameter::Double(value) => map.serialize_entry(name, value)?,
                Parameter::Text(value) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tensor::{DataType, Tensor};
    use serde_json::{Value, json};

    fn output(name: &str, binary: Option<bool>) -> AnsweredOutput {
        let data = [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat().into();
        let shape = Shape::from([1, 2]);
        AnsweredOutput {
            tensor: Tensor { name: name.to_owned(), datatype: DataType::Fp32, shape, data },
            binary,
            own: false,
        }
    }

    fn answer(outputs: Vec<AnsweredOutput>) -> Answer {
        let parameters = [("colour\"".to_owned(), Parameter::Text("red".to_owned()))].into_iter().collect();
        Answer { id: "7".to_owned(), parameters, outputs }
    }

    #[test]
    fn an_output_is_json_or_bytes_behind_it() {
        let body = write("m", "1", answer(vec![output("a", None), output("b", Some(true))])).unwrap();
        let json: Value = serde_json::from_slice(&body.parts[0]).unwrap();
        let expected = json!({
            "model_name": "m", "model_version": "1", "id": "7", "parameters": {"colour\"": "red"},
            "outputs": [
                {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]},
                {"name": "b", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            ],
        });
        assert_eq!(json, expected);
        assert!(body.binary);
        assert_eq!(&body.parts[1][..4], 1.5_f32.to_le_bytes());
        assert_eq!(body.parts[1].len(), 8);
        assert!(!write("m", "1", answer(vec![])).unwrap().binary);
    }

    #[test]
    fn what_json_cannot_carry_is_said_with_the_way_out() {
        let mut nan = output("a", Some(false));
        nan.tensor.data = f32::NAN.to_le_bytes().to_vec().into();
        let error = write("m", "1", answer(vec![nan])).unwrap_err();
        assert!(error.to_string().contains("`binary_data`"), "{error}");
    }
}
