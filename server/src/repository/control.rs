//! What clients may ask of the repository while the server runs: its index, loading, unloading and statistics.
//!
//! Both faces render these plain structs; [`ModelRepository`](super::ModelRepository) has the methods.

use std::collections::HashMap;

use bytes::Bytes;

/// A line of the repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Its version; empty when the model was never loaded or no version of it could be found.
    pub version: String,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`, as Triton names them; empty when the model was never loaded.
    pub state: &'static str,
    /// Why it is not ready; empty when it is.
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
