//! The body of an inference request: JSON, alone or followed by the bytes of its binary tensors.
//!
//! What is hostile is refused before it costs much: names and numbers are read straight from the text, and of lists
//! that are expected to be short only so many entries are taken.

use super::elements;
use crate::error::ServingError;
use crate::inference::{Ask, Parameter, Parameters, WantedOutput};
use crate::repository::ModelVersion;
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Inputs or outputs of a request, and parameters of one of its objects, at most.
const MAX_ENTRIES: usize = 1024;
/// Dimensions of a tensor at most.
const MAX_RANK: usize = 32;

/// Counts bytes before they are taken, or refuses them.
type Reserve<'a> = &'a dyn Fn(usize) -> Result<(), ServingError>;

/// Reads a request. The first `header_length` bytes of `body` are its JSON, and the bytes of the binary inputs follow
/// in their order; without it all is JSON. No tensor's bytes are copied. `reserve` is told of the memory that elements in
/// JSON need, before it is taken.
///
/// # Errors
/// `InvalidInput`, with a sentence that says where; and those of `reserve`.
pub(super) fn read(
    body: &Bytes,
    header_length: Option<usize>,
    reserve: Reserve<'_>,
) -> Result<Ask, ServingError> {
    let length = header_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(invalid(format!(
            "Inference-Header-Content-Length is {length}, but the body has {} bytes.",
            body.len()
        )));
    }
    let (json, mut binary) = (&body[..length], body.slice(length..));
    let request: RequestJson<'_> = object(json, "The request body")?;
    let mut inputs = Vec::with_capacity(request.inputs.0.len());
    for input in request.inputs.0 {
        let input: InputJson<'_> = object(input.get().as_bytes(), "An input")?;
        inputs.push(tensor(input, &mut binary, reserve)?);
    }
    if !binary.is_empty() {
        return Err(invalid(format!(
            "The body has {} bytes more than the binary_data_size of its inputs add up to.",
            binary.len()
        )));
    }
    let outputs = request.outputs.unwrap_or_default().0.into_iter().map(|output| {
        let output: OutputJson<'_> = object(output.get().as_bytes(), "An output")?;
        Ok(WantedOutput { name: output.name.into_owned(), parameters: given(output.parameters) })
    });
    Ok(Ask {
        id: request.id.map(|Text(id)| id.into_owned()).unwrap_or_default(),
        parameters: given(request.parameters),
        inputs,
        outputs: outputs.collect::<Result<_, ServingError>>()?,
    })
}

/// A body that is nothing but the data of the only input, one row of it, as Triton takes it: binary, of the shape that
/// the model has. For a model of images it may also be an encoded image.
///
/// # Errors
/// `InvalidInput` for a model with several inputs, or when the shape cannot be known.
pub(super) fn raw(model: &ModelVersion, body: Bytes) -> Result<Ask, ServingError> {
    let [spec] = model.inputs() else {
        return Err(invalid(format!(
            "Model `{}` has several inputs, so a body of binary data alone is not enough: send JSON, too.",
            model.name()
        )));
    };
    let batch = (model.max_batch_size() > 0).then_some(1);
    let dims: Vec<i64> = batch.into_iter().chain(spec.dims.iter().copied()).collect();
    let row =
        Tensor { name: spec.name.to_string(), datatype: spec.datatype, shape: Shape::from(dims), data: body };
    let input = match row.shape.byte_count(row.datatype) {
        Some(bytes) if bytes == row.data.len() => row,
        _ if model.vision().is_some() || spec.datatype == DataType::Bytes => {
            Tensor { shape: Shape::from([1]), ..Tensor::from_byte_strings(row.name, [row.data]) }
        }
        Some(_) => row,
        None => {
            return Err(invalid(format!(
                "Input `{}` has the shape {}, so its size must be said: send JSON, too.",
                row.name, row.shape
            )));
        }
    };
    let binary = ("binary_data_output".to_owned(), Parameter::Bool(true));
    Ok(Ask { parameters: [binary].into_iter().collect(), inputs: vec![input], ..Ask::default() })
}

fn tensor(input: InputJson<'_>, binary: &mut Bytes, reserve: Reserve<'_>) -> Result<Tensor, ServingError> {
    let name = input.name.into_owned();
    let parameters = given(input.parameters);
    if parameters.get("shared_memory_region").is_some() {
        return Err(invalid(format!(
            "Input `{name}` is in shared memory, which is not supported: send its data."
        )));
    }
    let datatype: DataType =
        input.datatype.parse().map_err(|reason| invalid(format!("Input `{name}`: {reason}")))?;
    let shape = Shape::from(input.shape.0);
    if shape.element_count().is_none() {
        return Err(invalid(format!("Input `{name}` has the shape {shape}, which no tensor can have.")));
    }
    let size = match parameters.get("binary_data_size") {
        None => None,
        Some(Parameter::Int(size)) if *size >= 0 => usize::try_from(*size).ok(),
        Some(Parameter::Uint(size)) => usize::try_from(*size).ok(),
        Some(_) => {
            return Err(invalid(format!(
                "The binary_data_size of input `{name}` is no number of bytes: send a whole number, 0 or more."
            )));
        }
    };
    let data = match (size, input.data) {
        (Some(_), Some(_)) => {
            return Err(invalid(format!(
                "Input `{name}` has `data` beside binary_data_size: send its data in one of them."
            )));
        }
        (None, None) => {
            return Err(invalid(format!(
                "Input `{name}` has no data: send `data`, or its bytes after the JSON and their binary_data_size."
            )));
        }
        (Some(size), None) if size > binary.len() => {
            return Err(invalid(format!(
                "Input `{name}` has a binary_data_size of {size} bytes, but only {} follow the JSON (is \
                 Inference-Header-Content-Length set?).",
                binary.len()
            )));
        }
        (Some(size), None) => binary.split_to(size),
        (None, Some(data)) => {
            reserve(elements::room(data.get(), datatype, &shape))?;
            elements::read(data.get(), datatype, &shape)
                .map_err(|clause| invalid(format!("Input `{name}` {clause}.")))?
        }
    };
    Ok(Tensor { name, datatype, shape, data })
}

/// Reads an object; serde would take an array for its fields in their order.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, ServingError> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(invalid(format!("{what} is not a JSON object.")));
    }
    serde_json::from_slice(json).map_err(|error| invalid(format!("{what} cannot be read: {error}.")))
}

fn given(parameters: Option<ParametersJson>) -> Parameters {
    parameters.map(|ParametersJson(parameters)| parameters).unwrap_or_default()
}

fn invalid(sentence: String) -> ServingError {
    ServingError::InvalidInput(sentence)
}

#[derive(serde::Deserialize)]
struct RequestJson<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    parameters: Option<ParametersJson>,
    #[serde(borrow)]
    inputs: AtMost<&'a RawValue, MAX_ENTRIES>,
    #[serde(borrow)]
    outputs: Option<AtMost<&'a RawValue, MAX_ENTRIES>>,
}

#[derive(serde::Deserialize)]
struct InputJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: AtMost<i64, MAX_RANK>,
    parameters: Option<ParametersJson>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct OutputJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    parameters: Option<ParametersJson>,
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A list that has at most `N` entries.
struct AtMost<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for AtMost<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Entries<T, N> {
            type Value = AtMost<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut taken = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if taken.len() == N {
                        return Err(A::Error::custom(format!("a list has more than {N} entries")));
                    }
                    taken.push(entry);
                }
                Ok(AtMost(taken))
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// Parameters: texts, numbers and booleans by their names. A null is as good as absent.
pub(super) struct ParametersJson(pub(super) Parameters);

impl<'de> Deserialize<'de> for ParametersJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl<'de> Visitor<'de> for Named {
            type Value = ParametersJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parameters: Vec<(String, Parameter)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let Value(value) = map.next_value()?;
                    if parameters.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format!(
                            "there are more than {MAX_ENTRIES} parameters"
                        )));
                    }
                    if parameters.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("the parameter `{name}` is given twice")));
                    }
                    parameters.extend(value.map(|value| (name, value)));
                }
                Ok(ParametersJson(parameters.into_iter().collect()))
            }
        }
        deserializer.deserialize_map(Named)
    }
}

struct Value(Option<Parameter>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter that is a text, a number, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Value(Some(Parameter::Bool(value))))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Value(Some(Parameter::Int(value))))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Value(Some(i64::try_from(value).map_or(Parameter::Uint(value), Parameter::Int))))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Value(Some(Parameter::Double(value))))
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Value(Some(Parameter::Text(value.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value(None))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests;
