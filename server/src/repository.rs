//! The model repository: which models and versions are served, in Triton's layout.
//!
//! `models/<name>/config.pbtxt` and `models/<name>/<version>/model.onnx`; or one `.onnx` file.

mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Device;
use crate::error::{LoadError, ServingError};
use crate::scheduler::ServingObserver;

pub use version::{
    DETECTIONS_OUTPUT, InferenceRequest, InferenceResponse, ModelVersion, Task, TensorSpec, VisionInput,
};

/// How models are found and run.
#[derive(Clone, Debug)]
pub struct RepositoryConfig {
    /// A repository, or one `.onnx` file.
    pub path: PathBuf,
    /// Where models run.
    pub device: Device,
    /// The model that an empty name means. `None`: the only one, if there is only one.
    pub default_model: Option<String>,
    /// ONNX Runtime's shared library. `None`: looked for in the documented places.
    pub onnxruntime_lib: Option<PathBuf>,
    /// Requests that may wait per model version; one more is answered `Overloaded`.
    pub queue_size: usize,
    /// `max_batch_size` of a model whose configuration gives none and whose first dimension is open.
    pub default_max_batch_size: usize,
    /// Time that measuring one model's latencies may take while it loads.
    pub profile_time: Duration,
}

impl RepositoryConfig {
    /// Default of [`RepositoryConfig::queue_size`].
    pub const DEFAULT_QUEUE_SIZE: usize = 256;
    /// Default of [`RepositoryConfig::default_max_batch_size`].
    pub const DEFAULT_MAX_BATCH_SIZE: usize = 8;
    /// Default of [`RepositoryConfig::profile_time`].
    pub const DEFAULT_PROFILE_TIME: Duration = Duration::from_secs(3);

    /// The defaults, for models at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            device: Device::Auto,
            default_model: None,
            onnxruntime_lib: None,
            queue_size: Self::DEFAULT_QUEUE_SIZE,
            default_max_batch_size: Self::DEFAULT_MAX_BATCH_SIZE,
            profile_time: Self::DEFAULT_PROFILE_TIME,
        }
    }
}

/// A line of the repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `READY` or `UNAVAILABLE`, as Triton names them.
    pub state: &'static str,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// The models being served.
pub struct ModelRepository {
    versions: Vec<Arc<ModelVersion>>,
}

impl ModelRepository {
    /// Loads every model, warms it and starts its instances. Blocking: seconds.
    pub fn load(config: &RepositoryConfig, observer: Arc<dyn ServingObserver>) -> Result<Self, LoadError> {
        let _ = (config, observer);
        Ok(Self { versions: Vec::new() })
    }

    /// The model `name` (empty: the default one) in `version` (empty: the newest one).
    pub fn get(&self, name: &str, version: &str) -> Result<Arc<ModelVersion>, ServingError> {
        let _ = version;
        Err(ServingError::ModelNotFound { name: name.to_owned() })
    }

    /// Every model and version, sorted by name, then newest first.
    pub fn index(&self) -> Vec<IndexEntry> {
        Vec::new()
    }

    /// Every version being served.
    pub fn versions(&self) -> &[Arc<ModelVersion>] {
        &self.versions
    }

    /// Name of the model that an empty name means.
    pub fn default_model(&self) -> Option<&str> {
        None
    }

    /// Refuses new requests (`Unavailable`), runs what is queued, and joins the instances' threads. Blocking.
    pub fn shutdown(&self) {}
}
