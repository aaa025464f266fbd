//! The handle the services share.

use std::time::Instant;

use bytes::Bytes;

use crate::{ImageTensor, Preprocessed, Resize, SandboxConfig, SandboxError};

/// A pool of threads that preprocess images in fresh guest instances. Cheap to clone; the threads end when the
/// last handle drops.
#[derive(Clone, Debug)]
pub struct Sandbox {}

impl Sandbox {
    /// Compiles the component and starts the threads. Blocks for about a second.
    pub fn new(_config: SandboxConfig) -> Result<Self, SandboxError> {
        Err(SandboxError::Component { detail: "the engine is being built".to_owned() })
    }

    /// Decodes an image and brings it to the size a model wants.
    pub async fn tensor(
        &self,
        _image: Bytes,
        _resize: Resize,
        _deadline: Option<Instant>,
    ) -> Result<ImageTensor, SandboxError> {
        Err(SandboxError::Stopped)
    }

    /// Decodes an image, resizes it, measures it and encodes it as JPEG again.
    pub async fn preprocess(
        &self,
        _image: Bytes,
        _resize: Resize,
        _deadline: Option<Instant>,
    ) -> Result<Preprocessed, SandboxError> {
        Err(SandboxError::Stopped)
    }
}
