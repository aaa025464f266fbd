//! One version of a model, ready to be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoy_proto::inference::ModelConfig;

use crate::backend::ExecutionProvider;
use crate::detection::Detection;
use crate::error::ServingError;
use crate::tensor::{DataType, Tensor};

/// Name of the output that a detection model has besides the model file's own: asked for by name only, and made by
/// the faces from [`ModelVersion::detections`].
pub const DETECTIONS_OUTPUT: &str = "detections";

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Type of its elements.
    pub datatype: DataType,
    /// Dimensions without the batch dimension; -1 for an open one.
    pub dims: Vec<i64>,
}

/// The image input of a vision model: what the sandbox is to make of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionInput {
    /// Name of the input.
    pub input_name: Arc<str>,
    /// Size, fit and filter.
    pub resize: sandbox::Resize,
}

/// What a model's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing is known about them.
    None,
    /// Boxes and scores.
    Detection,
    /// A score per class.
    Classification,
}

/// Tensors for a model. Outputs asked for are the model's own; [`DETECTIONS_OUTPUT`] is none of them.
#[derive(Clone, Debug, Default)]
pub struct InferenceRequest {
    /// The caller's id, for logs. May be empty.
    pub id: String,
    /// Every input of the model, in any order. A vision model's image input takes the declared data type, or UINT8
    /// `[n,h,w,3]`.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty: all. [`ModelVersion::detections`] wants all.
    pub outputs: Vec<String>,
}

/// What a model answered.
#[derive(Clone, Debug)]
pub struct InferenceResponse {
    /// The outputs asked for, in the order asked for, else in the model's.
    pub outputs: Vec<Tensor>,
    /// From arrival in the queue until an instance took the request.
    pub queue: Duration,
    /// What its batch took: written, run and split.
    pub inference: Duration,
    /// Rows of the batch it was part of.
    pub batch_size: usize,
}

/// One version of a model, ready to be asked.
pub struct ModelVersion {
    name: String,
    version: String,
    config: ModelConfig,
}

impl ModelVersion {
    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, a decimal number.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Triton's configuration, completed from the model file and with Convoy's defaults in its `parameters`.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The inputs, in the configuration's order.
    pub fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    /// The outputs, in the configuration's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    /// The image input, if the model has one.
    pub fn vision(&self) -> Option<&VisionInput> {
        None
    }

    /// What the outputs mean.
    pub fn task(&self) -> Task {
        Task::None
    }

    /// Rows a request may have; 0 when the model has no batch dimension.
    pub fn max_batch_size(&self) -> usize {
        0
    }

    /// What the model really runs on.
    pub fn execution_provider(&self) -> ExecutionProvider {
        ExecutionProvider::Cpu
    }

    /// Why it runs on the CPU although [`Device::Auto`](crate::backend::Device::Auto) tried a GPU.
    pub fn fallback_reason(&self) -> Option<&str> {
        None
    }

    /// Requests waiting in the queue.
    pub fn pending(&self) -> usize {
        0
    }

    /// Checks the request, queues it, and waits for its result.
    ///
    /// # Errors
    /// `InvalidInput` for what does not fit the model, `Overloaded` when the queue is full, `DeadlineExceeded` when
    /// the deadline passes first, `Unavailable` when the server is stopping, `Internal` when the model fails.
    pub async fn infer(
        &self,
        request: InferenceRequest,
        deadline: Option<Instant>,
    ) -> Result<InferenceResponse, ServingError> {
        let _ = (request, deadline);
        Err(ServingError::Unavailable("The model is not loaded.".to_owned()))
    }

    /// The detections in a response that holds all outputs: one list per row, best first; thresholds, non-maximum
    /// suppression and kept classes applied.
    ///
    /// # Errors
    /// `InvalidInput` when the model is no detector, `Internal` when the response lacks its boxes or scores.
    pub fn detections(&self, response: &InferenceResponse) -> Result<Vec<Vec<Detection>>, ServingError> {
        let _ = response;
        Err(ServingError::InvalidInput(format!("Model `{}` is no detector.", self.name)))
    }
}
