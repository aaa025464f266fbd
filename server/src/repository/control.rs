//! What clients may ask of the repository while the server runs: its index, loading, unloading and statistics.
//!
//! Both faces render these plain structs; [`ModelRepository`](super::ModelRepository) has the methods.

use std::collections::HashMap;

use bytes::Bytes;

use super::config::{self, WrittenConfig};
use super::registry::ModelState;
use crate::error::ServingError;

/// A line of the repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Its version; empty when the model was never loaded or no version of it could be found.
    pub version: String,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`, as Triton names them; empty when the model was never loaded.
    pub state: &'static str,
    /// Why it is not ready, or what of it is broken although it is; empty when nothing is.
    pub reason: String,
}

/// The value of a parameter of a load or unload.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue {
    /// A JSON or protobuf boolean.
    Bool(bool),
    /// A whole number.
    Int64(i64),
    /// Text.
    String(String),
    /// The content of a file.
    Bytes(Bytes),
}

/// The parameters of a load (`config`: a model configuration as JSON, used instead of the one on disk) or of an
/// unload (`unload_dependents`, which has no effect: there are no ensembles).
pub type ControlParameters = HashMap<String, ParameterValue>;

impl IndexEntry {
    /// Whether it is served.
    pub fn is_ready(&self) -> bool {
        self.state == ModelState::Ready.as_str()
    }
}

/// The configuration that a load brings along.
pub(super) fn given_config(parameters: ControlParameters) -> Result<Option<WrittenConfig>, ServingError> {
    let mut given = None;
    for (name, value) in parameters {
        match (name.as_str(), value) {
            ("config", ParameterValue::String(text)) => {
                let parsed = config::parse_json(&text).map_err(|detail| {
                    ServingError::InvalidInput(format!(
                        "The parameter `config` is no configuration: {detail}."
                    ))
                })?;
                given = Some(parsed);
            }
            ("config", _) => {
                return Err(ServingError::InvalidInput(
                    "The parameter `config` must be a string: a model configuration as JSON.".to_owned(),
                ));
            }
            (name, _) if name.starts_with("file:") => {
                return Err(ServingError::InvalidInput(format!(
                    "The parameter `{name}` is not supported: put the file into the repository, and load it from \
                     there."
                )));
            }
            (name, _) => {
                return Err(ServingError::InvalidInput(format!(
                    "The parameter `{name}` is unknown: a load takes `config`."
                )));
            }
        }
    }
    Ok(given)
}

/// Dependents are the parts of ensembles, of which there are none.
pub(super) fn check_unload_parameters(parameters: &ControlParameters) -> Result<(), ServingError> {
    match parameters.iter().find(|(name, value)| {
        !(name.as_str() == "unload_dependents" && matches!(value, ParameterValue::Bool(_)))
    }) {
        None => Ok(()),
        Some((name, _)) if name == "unload_dependents" => Err(ServingError::InvalidInput(
            "The parameter `unload_dependents` must be true or false.".to_owned(),
        )),
        Some((name, _)) => Err(ServingError::InvalidInput(format!(
            "The parameter `{name}` is unknown: an unload takes `unload_dependents`."
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parameters(name: &str, value: ParameterValue) -> ControlParameters {
        [(name.to_owned(), value)].into()
    }

    #[test]
    fn what_a_load_and_an_unload_do_not_understand_is_refused() {
        let text = |text: &str| ParameterValue::String(text.to_owned());
        assert_eq!(given_config(ControlParameters::new()).unwrap(), None);
        let given = given_config(parameters("config", text(r#"{"max_batch_size": 2}"#))).unwrap().unwrap();
        assert_eq!(given.config.max_batch_size, 2);
        for (name, value, part) in [
            ("config", text("{"), "is no configuration"),
            ("config", ParameterValue::Int64(1), "must be a string"),
            ("file:1/model.onnx", ParameterValue::Bytes(Bytes::new()), "put the file into the repository"),
            ("speed", ParameterValue::Bool(true), "unknown"),
        ] {
            let error = given_config(parameters(name, value)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for value in [true, false] {
            let unload = parameters("unload_dependents", ParameterValue::Bool(value));
            assert_eq!(check_unload_parameters(&unload), Ok(()));
        }
        assert!(check_unload_parameters(&parameters("unload_dependents", text("yes"))).is_err());
        assert!(check_unload_parameters(&parameters("config", text("{}"))).is_err());
    }
}
