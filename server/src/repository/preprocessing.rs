//! A model's own preprocessing: `preprocess.wasm` in its folder, instead of the component that all share.

use std::collections::HashMap;

use convoy_proto::inference::ModelParameter;
use sandbox::{Sandbox, SandboxConfig};

use super::discover::ModelSource;
use crate::error::LoadError;

/// The component's file, in the model's folder.
pub(crate) const COMPONENT_FILE: &str = "preprocess.wasm";

/// The parameter that tells clients who makes pixels of an encoded image. One who sends pixels that another component made
/// would bypass the model's own.
const PARAMETER: &str = "preprocessing";
/// The model has a component of its own: encoded images are to be sent as they are.
const OWN: &str = "model";
/// What the server does for every model.
const SHARED: &str = "server";

/// Compiles the component of a model, about a second's work; `None` when it has none. Its limits are those of `shared`,
/// or the default ones.
///
/// # Errors
/// When there is one that cannot be used.
pub(crate) fn load(source: &ModelSource, shared: Option<&Sandbox>) -> Result<Option<Sandbox>, LoadError> {
    let path = source.folder.join(COMPONENT_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let made = match shared {
        Some(sandbox) => sandbox.with_component(&path),
        None => Sandbox::new(SandboxConfig { component: Some(path.clone()), ..SandboxConfig::default() }),
    };
    made.map(Some).map_err(|error| LoadError::Model {
        path,
        detail: error.to_string().trim_end_matches('.').to_owned(),
    })
}

/// Tells clients in the model's configuration whether encoded images are preprocessed by a component of its own.
pub(crate) fn tell(parameters: &mut HashMap<String, ModelParameter>, has_own: bool) {
    let word = if has_own { OWN } else { SHARED };
    parameters.insert(PARAMETER.to_owned(), ModelParameter { string_value: word.to_owned() });
}
