//! A model's own preprocessing: `preprocess.wasm` in its folder, instead of the component that all share.

use std::collections::HashMap;
use std::io;

use convoy_proto::inference::ModelParameter;
use sandbox::{Sandbox, SandboxConfig};
use service_kit::hexadecimal;
use sha2::{Digest as _, Sha256};

use super::discover::ModelSource;
use super::version::VisionInput;
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

/// The parameter, of the configuration and of each answer, that tells which preprocessing was loaded.
pub(crate) const PREPROCESSING_ID: &str = "preprocessing_id";
/// Bytes of the hash that are kept: enough that no two are alike by chance.
const ID_BYTES: usize = 16;

/// What a client that makes pixels itself must know of the preprocessing for `vision` is hashed into it, and the component of
/// the model's own `sandbox`. So it is another one when what is loaded makes other pixels of an image, and the same on every
/// replica that loaded the same.
pub(crate) fn id(vision: &VisionInput, sandbox: Option<&Sandbox>) -> String {
    let sandbox::Resize { width, height, fit, filter, color, decode } = vision.resize;
    let component = sandbox.map_or("", Sandbox::component_sha256);
    // The name, which may hold anything, comes last.
    let text = format!("{width} {height} {fit} {filter} {color} {decode} {component}\n{}", vision.input_name);
    hexadecimal(&Sha256::digest(text)[..ID_BYTES])
}

/// Compiles the component of a model, about a second's work; `None` when it has none. Its limits are those of `shared`,
/// or the default ones.
///
/// # Errors
/// When there is one that cannot be used.
pub(crate) fn load(source: &ModelSource, shared: Option<&Sandbox>) -> Result<Option<Sandbox>, LoadError> {
    let path = source.folder.join(COMPONENT_FILE);
    // A link that leads nowhere, or a file that cannot be seen, is no missing one: without it other pixels would be served.
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
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

/// Tells clients in the model's configuration whether encoded images are preprocessed by a component of its own, and which
/// preprocessing it is.
pub(crate) fn tell(parameters: &mut HashMap<String, ModelParameter>, has_own: bool, id: &str) {
    let word = if has_own { OWN } else { SHARED };
    for (name, value) in [(PARAMETER, word), (PREPROCESSING_ID, id)] {
        parameters.insert(name.to_owned(), ModelParameter { string_value: value.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::{Color, Decode, Filter, Fit, Resize};

    #[test]
    fn an_id_is_of_all_that_decides_the_pixels_and_of_nothing_else() {
        let resize = Resize {
            width: 300,
            height: 200,
            fit: Fit::Stretch,
            filter: Filter::Bicubic,
            color: Color::Rgb,
            decode: Decode::Auto,
        };
        let of = |name: &str, resize| id(&VisionInput { input_name: name.into(), resize }, None);
        let known = of("images", resize);
        assert_eq!(known, of("images", resize));
        assert_eq!(known.len(), 2 * ID_BYTES);
        for other in [
            of("image", resize),
            of("images", Resize { width: 200, height: 300, ..resize }),
            of("images", Resize { fit: Fit::Letterbox, ..resize }),
            of("images", Resize { filter: Filter::Bilinear, ..resize }),
            of("images", Resize { color: Color::Bgr, ..resize }),
            of("images", Resize { decode: Decode::Full, ..resize }),
        ] {
            assert_ne!(known, other);
        }
    }
}
