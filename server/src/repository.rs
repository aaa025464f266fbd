//! The model repository: which models and versions are served, in Triton's layout.
//!
//! `models/<name>/config.pbtxt` and `models/<name>/<version>/model.onnx`; or one `.onnx` file.

mod complete;
mod config;
pub mod control;
mod discover;
mod labels;
mod load;
mod observer;
mod parameters;
mod placement;
mod statistics;
mod version;
mod warmup;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Device;
use crate::backend::onnx::OnnxRuntime;
use crate::config::Slo;
use crate::error::{LoadError, ServingError};
use crate::scheduler::ServingObserver;
use discover::ModelSource;

pub use crate::scheduler::{InferenceRequest, InferenceResponse};
pub use crate::tensor::TensorSpec;
pub use control::{ControlParameters, IndexEntry, ParameterValue};
pub use statistics::{BatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};
pub use version::{DETECTIONS_OUTPUT, ModelVersion, Task, VisionInput};

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
    /// The latency objective of models whose parameters set none. `None`: only callers' deadlines count.
    pub slo: Option<Duration>,
}

impl RepositoryConfig {
    /// Default of [`RepositoryConfig::queue_size`].
    pub const DEFAULT_QUEUE_SIZE: usize = 256;
    /// Default of [`RepositoryConfig::default_max_batch_size`].
    pub const DEFAULT_MAX_BATCH_SIZE: usize = 8;
    /// Default of [`RepositoryConfig::profile_time`].
    pub const DEFAULT_PROFILE_TIME: Duration = Duration::from_secs(3);
    /// Default of [`RepositoryConfig::slo`].
    pub const DEFAULT_SLO: Option<Duration> = Slo::DEFAULT.limit();

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
            slo: Self::DEFAULT_SLO,
        }
    }
}

/// The models being served.
pub struct ModelRepository {
    /// By name, then newest first.
    versions: Vec<Arc<ModelVersion>>,
    default_model: Option<String>,
}

impl ModelRepository {
    /// Loads every model, warms it and starts its instances. Blocking: seconds.
    ///
    /// # Errors
    /// When ONNX Runtime, the repository, or any model in it cannot be used.
    pub fn load(config: &RepositoryConfig, observer: Arc<dyn ServingObserver>) -> Result<Self, LoadError> {
        let sources = discover::discover(&config.path)?;
        let default_model = default_model(config, &sources)?;
        let runtime = OnnxRuntime::load(config.onnxruntime_lib.as_deref())?;
        let mut versions = Vec::new();
        for source in &sources {
            for version in &source.versions {
                let observer = Arc::clone(&observer);
                versions.push(Arc::new(load::load_version(&runtime, config, source, version, observer)?));
            }
        }
        log_fallback(&versions);
        Ok(Self { versions, default_model })
    }

    /// The model `name` (empty: the default one) in `version` (empty: the newest one).
    ///
    /// # Errors
    /// `NotFound` for what is not here.
    pub fn get(&self, name: &str, version: &str) -> Result<Arc<ModelVersion>, ServingError> {
        let name = match (name, &self.default_model) {
            ("", Some(default)) => default,
            ("", None) => return Err(ServingError::NoDefaultModel),
            (name, _) => name,
        };
        let mut versions = self.versions.iter().filter(|model| model.name() == name).peekable();
        if versions.peek().is_none() {
            return Err(ServingError::ModelNotFound { name: name.to_owned() });
        }
        let found = versions.find(|model| version.is_empty() || model.version() == version);
        found.cloned().ok_or_else(|| ServingError::VersionNotFound {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Every model in the repository, loaded or not, with its versions: sorted by name, then newest first.
    pub fn index(&self, only_ready: bool) -> Vec<IndexEntry> {
        // All that are here are ready.
        let _ = only_ready;
        let entry = |model: &Arc<ModelVersion>| IndexEntry {
            name: model.name().to_owned(),
            version: model.version().to_owned(),
            state: "READY",
            reason: String::new(),
        };
        self.versions.iter().map(entry).collect()
    }

    /// Loads the model `name`, or loads it again from what is on disk now, and answers when it is served. The version
    /// that was served before is served until then; what it was asked by then, it answers.
    ///
    /// # Errors
    /// `Unavailable` in `--model-control-mode none` and while the server stops, `NotFound` for a model that the
    /// repository does not hold, `InvalidInput` for parameters that cannot be and for a model that cannot be served
    /// (the one that was served before still is), `Overloaded` when too many loads wait.
    pub async fn load_model(&self, name: &str, parameters: ControlParameters) -> Result<(), ServingError> {
        let _ = (name, parameters);
        Err(not_controlled())
    }

    /// Stops serving the model `name`: it is asked nothing more at once, answers what it was asked, and its memory is
    /// returned. A model that is not loaded is none that fails.
    ///
    /// # Errors
    /// As [`ModelRepository::load_model`].
    pub async fn unload_model(&self, name: &str, parameters: ControlParameters) -> Result<(), ServingError> {
        let _ = (name, parameters);
        Err(not_controlled())
    }

    /// What the versions being served have done: all of them (`name` empty), all of a model (`version` empty), or one.
    ///
    /// # Errors
    /// `NotFound` for what is not served.
    pub fn statistics(&self, name: &str, version: &str) -> Result<Vec<ModelStatistics>, ServingError> {
        if !name.is_empty() {
            self.get(name, version)?;
        }
        let wanted = |model: &&Arc<ModelVersion>| {
            (name.is_empty() || model.name() == name) && (version.is_empty() || model.version() == version)
        };
        Ok(self.versions.iter().filter(wanted).map(|model| model.statistics()).collect())
    }

    /// Every version being served, sorted by name, then newest first.
    pub fn versions(&self) -> Vec<Arc<ModelVersion>> {
        self.versions.clone()
    }

    /// Name of the model that an empty name means.
    pub fn default_model(&self) -> Option<String> {
        self.default_model.clone()
    }

    /// Refuses new requests (`Unavailable`), runs what is queued, and joins the instances' threads. Blocking.
    pub fn shutdown(&self) {
        // All are closed first, so that they drain side by side.
        for model in &self.versions {
            model.close();
        }
        for model in &self.versions {
            model.stop();
        }
    }
}

/// The model that an empty name means: the one that is configured, else the only one.
fn default_model(config: &RepositoryConfig, sources: &[ModelSource]) -> Result<Option<String>, LoadError> {
    let Some(name) = &config.default_model else {
        return Ok(match sources {
            [only] => Some(only.name.clone()),
            _ => None,
        });
    };
    if sources.iter().any(|source| source.name == *name) {
        return Ok(Some(name.clone()));
    }
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    Err(LoadError::Repository {
        path: config.path.clone(),
        detail: format!("it does not hold the default model `{name}`; its models are {}", names.join(", ")),
    })
}

/// The answer to a load or unload in a mode that has none.
fn not_controlled() -> ServingError {
    ServingError::Unavailable(
        "Models are not loaded and unloaded on request here: start the server with --model-control-mode explicit."
            .to_owned(),
    )
}

/// Says once, and not for each model, why there is no GPU.
fn log_fallback(versions: &[Arc<ModelVersion>]) {
    if let Some(reason) = versions.iter().find_map(|model| model.fallback_reason()) {
        tracing::info!(reason, "Models run on the CPU");
    }
}

#[cfg(test)]
mod tests;
