//! The model repository: which models and versions are served, in Triton's layout.
//!
//! `models/<name>/config.pbtxt` and `models/<name>/<version>/model.onnx`; or one `.onnx` file. A `preprocess.wasm` beside
//! the configuration preprocesses the model's encoded images.

mod acceleration;
mod batching;
mod complete;
mod config;
pub mod control;
mod discover;
mod fallbacks;
mod identity;
mod instances;
mod kept_profile;
mod labels;
mod load;
mod load_thread;
mod observer;
mod operations;
mod parameters;
mod placement;
mod preprocessing;
mod profile_cache;
mod registry;
mod retire;
mod shapes;
mod statistics;
mod version;
mod warmup;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use convoy_proto::inference::ModelConfig;
use sandbox::Sandbox;
use service_kit::Readiness;

use crate::backend::onnx::OnnxRuntime;
use crate::backend::{Acceleration, Device};
use crate::config::TimeLimit;
use crate::error::{LoadError, ServingError};
use crate::gpu::GpuHealth;
use crate::scheduler::{OutputMeter, ServingObserver};
use operations::Shared;

pub use crate::scheduler::{InferenceRequest, InferenceResponse};
pub use crate::tensor::TensorSpec;
pub use control::{ControlParameters, IndexEntry, ParameterValue};
pub(crate) use operations::log_not_loaded;
pub(crate) use preprocessing::PREPROCESSING_ID;
pub use statistics::{BatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};
pub use version::{DETECTIONS_OUTPUT, ModelVersion, Task, VisionInput};

/// Whether models are loaded and unloaded while the server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelControlMode {
    /// Every model of the repository is loaded at start; that is all.
    #[default]
    None,
    /// At start the models named by `--load-model` are loaded; clients load and unload others, and these.
    Explicit,
}

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
    /// Requests that may wait per model version where its configuration does not say; one more is answered
    /// `Overloaded`. Before that, the time they would need bounds the queue.
    pub queue_size: usize,
    /// `max_batch_size` of a model whose configuration gives none and whose first dimension is open.
    pub default_max_batch_size: usize,
    /// Time that measuring one model's latencies may take while it loads.
    pub profile_time: Duration,
    /// Folder where what was measured is kept for the next start. `None`: it is not.
    pub profile_cache: Option<PathBuf>,
    /// The latency objective of models whose parameters set none. `None`: only callers' deadlines count.
    pub slo: Option<Duration>,
    /// Whose limits, threads and queues a model's own preprocessing component gets, for itself. `None`: the default ones.
    pub sandbox: Option<Sandbox>,
    /// What the outputs of batches are counted in, if they are.
    pub outputs: Option<Arc<dyn OutputMeter>>,
    /// Whether models are loaded and unloaded on request.
    pub control_mode: ModelControlMode,
    /// Models that are loaded at start in [`ModelControlMode::Explicit`]; [`RepositoryConfig::ALL_MODELS`] alone: all.
    pub load_models: Vec<String>,
    /// Knows which GPUs are lost. Default: none ever is.
    pub gpu_health: GpuHealth,
}

impl RepositoryConfig {
    /// Stands for every model in [`RepositoryConfig::load_models`].
    pub const ALL_MODELS: &'static str = "*";
    /// Default of [`RepositoryConfig::queue_size`].
    pub const DEFAULT_QUEUE_SIZE: usize = 10_000;
    /// Default of [`RepositoryConfig::default_max_batch_size`].
    pub const DEFAULT_MAX_BATCH_SIZE: usize = 8;
    /// Default of [`RepositoryConfig::profile_time`].
    pub const DEFAULT_PROFILE_TIME: Duration = Duration::from_secs(3);
    /// Default of [`RepositoryConfig::slo`].
    pub const DEFAULT_SLO: Option<Duration> = TimeLimit::SLO.limit();

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
            profile_cache: None,
            slo: Self::DEFAULT_SLO,
            sandbox: None,
            outputs: None,
            control_mode: ModelControlMode::None,
            load_models: Vec::new(),
            gpu_health: GpuHealth::default(),
        }
    }
}

/// The models being served: a set that loads and unloads change while it is asked.
pub struct ModelRepository {
    shared: Arc<Shared>,
}

impl ModelRepository {
    /// Opens the repository and ONNX Runtime; no model is loaded yet. Blocking.
    ///
    /// # Errors
    /// When ONNX Runtime or the repository cannot be used, or when, in [`ModelControlMode::None`], it holds no model or
    /// not the default one.
    pub fn open(config: &RepositoryConfig, observer: Arc<dyn ServingObserver>) -> Result<Self, LoadError> {
        let names = discover::names(&config.path)?;
        let chosen = match config.control_mode {
            ModelControlMode::None if names.is_empty() => {
                return Err(discover::nothing_to_serve(&config.path));
            }
            ModelControlMode::None => {
                check_default_model(config, &names)?;
                names
            }
            ModelControlMode::Explicit if config.load_models == [RepositoryConfig::ALL_MODELS] => names,
            ModelControlMode::Explicit => config.load_models.clone(),
        };
        let runtime = OnnxRuntime::load(config.onnxruntime_lib.as_deref())?;
        Ok(Self { shared: Shared::new(config.clone(), runtime, observer, chosen) })
    }

    /// Opens the repository and loads all that it is to serve from the start. Blocking: seconds.
    ///
    /// # Errors
    /// As [`ModelRepository::open`], and when any of the models cannot be served.
    pub fn load(config: &RepositoryConfig, observer: Arc<dyn ServingObserver>) -> Result<Self, LoadError> {
        let repository = Self::open(config, observer)?;
        match repository.load_chosen().into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(repository),
        }
    }

    /// Keeps `readiness` from being ready until each model that is to be served from the start is served with all its
    /// versions, or was unloaded on request; and whenever later no instance of one of them works. Call it before anything
    /// is loaded.
    pub fn hold_until_served(&self, readiness: &Readiness) {
        self.shared.hold_until_served(readiness);
    }

    /// Loads what is to be served from the start, one model after the other, and gives what went wrong, by the model's
    /// name, for the caller to log: a model that cannot be loaded leaves the others alone. Blocking: seconds for each.
    pub fn load_chosen(&self) -> Vec<(String, LoadError)> {
        self.shared.load_chosen()
    }

    /// Loads the model `name`, or loads it again from what is on disk now, and answers when it is served. The version
    /// that was served before is served until then; what it was asked by then, it answers.
    ///
    /// The load goes on when the future is dropped.
    ///
    /// # Errors
    /// `Unavailable` in [`ModelControlMode::None`] and while the server stops, `NotFound` for a model that the
    /// repository does not hold, `InvalidInput` for parameters that cannot be and for a model that cannot be served
    /// (the one that was served before still is), `Overloaded` when too many loads wait.
    pub async fn load_model(&self, name: &str, parameters: ControlParameters) -> Result<(), ServingError> {
        self.shared.load_on_request(name, parameters).await
    }

    /// Stops serving the model `name`: it is asked nothing more at once, answers what it was asked, and its memory is
    /// returned. It answers when that is done, or after a few seconds if it takes longer: the index then says
    /// `UNLOADING` for as long as it does. A model that is not loaded stays so.
    ///
    /// # Errors
    /// As [`ModelRepository::load_model`].
    pub async fn unload_model(&self, name: &str, parameters: ControlParameters) -> Result<(), ServingError> {
        self.shared.unload_on_request(name, parameters).await
    }

    /// The model `name` (empty: the default one) in `version` (empty: the newest one).
    ///
    /// # Errors
    /// `NotFound` for what is not here, `Unavailable` for what is being loaded or could not be.
    pub fn get(&self, name: &str, version: &str) -> Result<Arc<ModelVersion>, ServingError> {
        let registry = self.shared.registry();
        if !name.is_empty() {
            return registry.get(name, version);
        }
        registry.get(self.shared.default_model(&registry).ok_or(ServingError::NoDefaultModel)?, version)
    }

    /// Every model in the repository, loaded or not, with its versions: sorted by name, then newest first.
    pub fn index(&self, only_ready: bool) -> Vec<IndexEntry> {
        self.shared.index(only_ready)
    }

    /// What the versions being served have done: all of them (`name` empty), all of a model (`version` empty), or one.
    ///
    /// # Errors
    /// As [`ModelRepository::get`].
    pub fn statistics(&self, name: &str, version: &str) -> Result<Vec<ModelStatistics>, ServingError> {
        let models = if name.is_empty() {
            self.versions()
        } else if version.is_empty() {
            self.get(name, version)?;
            self.versions_of(name)
        } else {
            vec![self.get(name, version)?]
        };
        Ok(models.iter().map(|model| model.statistics()).collect())
    }

    /// Every version being served, sorted by name, then newest first.
    pub fn versions(&self) -> Vec<Arc<ModelVersion>> {
        self.shared.registry().served().cloned().collect()
    }

    /// The versions of `name` being served, newest first.
    pub fn versions_of(&self, name: &str) -> Vec<Arc<ModelVersion>> {
        self.shared.registry().served_of(name).cloned().collect()
    }

    /// Name of the model that an empty name means.
    pub fn default_model(&self) -> Option<String> {
        self.shared.default_model(&self.shared.registry()).map(str::to_owned)
    }

    /// Refuses loads and unloads from now on; a load that is under way ends at its next step.
    pub fn end_control(&self) {
        self.shared.end_control();
    }

    /// Refuses new requests (`Unavailable`), runs what is queued, joins the instances' threads, and waits for loads,
    /// unloads and the ends of versions that are under way. Blocking.
    pub fn shutdown(&self) {
        self.shared.shutdown();
    }
}

impl Drop for ModelRepository {
    /// Nothing is left behind: when this returns, no thread of the repository runs.
    fn drop(&mut self) {
        self.shared.shutdown();
        self.shared.forget_all();
    }
}

/// How a model of this configuration is accelerated, as [`ModelVersion::config`] gives it: for sessions to measure it against.
///
/// # Errors
/// With what is wrong, in words for the middle of a sentence.
pub fn acceleration_of(config: &ModelConfig) -> Result<Acceleration, String> {
    acceleration::parse(config)
}

/// The default model must be there when the set of models never changes.
fn check_default_model(config: &RepositoryConfig, names: &[String]) -> Result<(), LoadError> {
    match &config.default_model {
        Some(name) if !names.contains(name) => Err(LoadError::Repository {
            path: config.path.clone(),
            detail: format!(
                "it does not hold the default model `{name}`; its models are {}",
                names.join(", ")
            ),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
