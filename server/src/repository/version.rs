//! One version of a model, ready to be asked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use convoy_proto::inference::ModelConfig;
use sandbox::Sandbox;

use super::kept_profile::KeptProfile;
use super::labels::Labels;
use super::retire::Retirement;
use super::statistics::{ModelStatistics, VersionStatistics};
use crate::backend::{ExecutionProvider, ProviderNodes};
use crate::detection::{Detection, Detector};
use crate::error::ServingError;
use crate::scheduler::{
    BrokenInstances, InferenceRequest, InferenceResponse, LatencyProfile, ModelLabels, Scheduler,
};
use crate::tensor::TensorSpec;
use service_kit::ErrorCode;

/// Name of the output that a detection model has besides the model file's own: asked for by name only, and made by
/// the faces from [`ModelVersion::detections`].
pub const DETECTIONS_OUTPUT: &str = "detections";

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

impl Task {
    /// The word for it in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Detection => "detection",
            Self::Classification => "classification",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no [`Task`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no task: use one of none, detection, classification.")]
pub struct ParseTaskError(String);

impl FromStr for Task {
    type Err = ParseTaskError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        [Self::None, Self::Detection, Self::Classification]
            .into_iter()
            .find(|task| task.as_str() == value)
            .ok_or_else(|| ParseTaskError(value.to_owned()))
    }
}

/// A request that has no answer yet; one that never gets it, because its caller gave up, has failed.
struct Unanswered<'a> {
    version: &'a ModelVersion,
    since: Instant,
    answered: bool,
}

impl Unanswered<'_> {
    /// What succeeded is counted by the scheduler, which knows what took how long.
    fn answered(mut self, with_a_result: bool) {
        self.answered = true;
        if !with_a_result {
            self.version.statistics.failed(self.since.elapsed());
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.version.statistics.abandoned(self.version.model_labels(), self.since.elapsed());
        }
    }
}

/// One version of a model, ready to be asked.
pub struct ModelVersion {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) config: ModelConfig,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) vision: Option<VisionInput>,
    pub(super) preprocessing_id: Option<String>,
    pub(super) task: Task,
    pub(super) labels: Labels,
    pub(super) detector: Option<Detector>,
    /// Of a model with a preprocessing component of its own. There until the version is dropped.
    pub(super) sandbox: Option<Sandbox>,
    pub(super) execution_provider: ExecutionProvider,
    pub(super) fallback_reason: Option<String>,
    pub(super) nodes: Vec<ProviderNodes>,
    pub(super) statistics: Arc<VersionStatistics>,
    /// There until the version is dropped.
    pub(super) scheduler: Option<Scheduler>,
    /// Where what its scheduler learns of latencies is kept for the next start.
    pub(super) kept: Option<Arc<KeptProfile>>,
    pub(super) retirement: Option<Retirement>,
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
        &self.inputs
    }

    /// The outputs, in the configuration's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// The image input, if the model has one.
    pub fn vision(&self) -> Option<&VisionInput> {
        self.vision.as_ref()
    }

    /// Tells the preprocessing of the image input from others, if there is one: equal where equal ones were loaded.
    pub fn preprocessing_id(&self) -> Option<&str> {
        self.preprocessing_id.as_deref()
    }

    /// The sandbox of the model's own preprocessing component, if it has one.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// What the outputs mean.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Names of the classes of the output `name`, by their index; empty when there are none.
    pub fn labels(&self, name: &str) -> &[Arc<str>] {
        self.labels.get(name).map_or(&[], |labels| labels)
    }

    /// Rows a request may have; 0 when the model has no batch dimension.
    pub fn max_batch_size(&self) -> usize {
        usize::try_from(self.config.max_batch_size).unwrap_or(0)
    }

    /// What the model really runs on.
    pub fn execution_provider(&self) -> ExecutionProvider {
        self.execution_provider
    }

    /// Why it runs on the CPU although [`Device::Auto`](crate::backend::Device::Auto) tried a GPU.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback_reason.as_deref()
    }

    /// Nodes of its graph by the execution provider that runs them; empty when that is not known.
    pub fn nodes(&self) -> &[ProviderNodes] {
        &self.nodes
    }

    /// Requests waiting in the queue.
    pub fn pending(&self) -> usize {
        self.scheduler().pending()
    }

    /// Instances that failed and could not be made anew, and why. They are tried again from time to time.
    pub fn broken_instances(&self) -> BrokenInstances {
        self.scheduler().broken_instances()
    }

    /// Why nothing can be run now, in a sentence, if so.
    pub fn not_ready_because(&self) -> Option<String> {
        let broken = self.broken_instances();
        broken.is_all().then(|| format!("Model `{}`: {broken}.", self.name))
    }

    /// How long batches take, by their size.
    pub fn profile(&self) -> LatencyProfile {
        self.scheduler().profiles().narrow
    }

    /// Rows that are worth running at once on this device.
    pub fn preferred_batch_size(&self) -> usize {
        self.scheduler().preferred_batch_size()
    }

    /// What it has done since it was loaded.
    pub fn statistics(&self) -> ModelStatistics {
        self.statistics.read(&self.name, &self.version)
    }

    fn scheduler(&self) -> &Scheduler {
        self.scheduler.as_ref().expect("a version has its scheduler until it is dropped")
    }

    /// Refuses new requests from now on; what is queued is still run.
    pub(super) fn close(&self) {
        self.scheduler().close();
    }

    /// Closes, runs what is queued, and joins the instances' threads. Blocking.
    pub(super) fn stop(&self) {
        self.scheduler().stop();
        if let Some(kept) = &self.kept {
            kept.take_over(&self.scheduler().profiles());
        }
    }

    /// Why a request of one row that came now with this deadline would be refused, whatever is in it.
    pub(crate) fn would_refuse(&self, deadline: Option<Instant>) -> Option<ServingError> {
        self.scheduler().would_refuse(1, deadline)
    }

    /// Counts a request that failed before [`ModelVersion::infer`] could be asked.
    pub(crate) fn count_failure(&self, code: ErrorCode) {
        self.statistics.failed_elsewhere(self.model_labels(), code);
    }

    /// Passes on what came of something that is done for a request before [`ModelVersion::infer`], and counts it if it failed.
    pub(crate) fn counted<T>(&self, outcome: Result<T, ServingError>) -> Result<T, ServingError> {
        outcome.inspect_err(|error| self.count_failure(error.code()))
    }

    fn model_labels(&self) -> ModelLabels<'_> {
        ModelLabels { model: &self.name, version: &self.version }
    }

    /// Checks the request, queues it, and waits for its result. Dropping the future takes the request out of the
    /// queue.
    ///
    /// # Errors
    /// `InvalidInput` for what does not fit the model, `Overloaded` when the queue is full or other work comes first,
    /// `DeadlineExceeded` when the deadline passes first, `Unavailable` when the server is stopping, `Internal` when
    /// the model fails.
    pub async fn infer(
        &self,
        request: InferenceRequest,
        deadline: Option<Instant>,
    ) -> Result<InferenceResponse, ServingError> {
        let unanswered = Unanswered { version: self, since: Instant::now(), answered: false };
        let answer = self.scheduler().infer(request, deadline).await;
        unanswered.answered(answer.is_ok());
        answer
    }

    /// The detections in a response that holds all outputs: one list per row, best first; thresholds, non-maximum
    /// suppression and kept classes applied.
    ///
    /// # Errors
    /// `InvalidInput` when the model is no detector, `Internal` when the response lacks its boxes or scores.
    pub fn detections(&self, response: &InferenceResponse) -> Result<Vec<Vec<Detection>>, ServingError> {
        match &self.detector {
            Some(detector) => detector.detect(&response.outputs),
            None => Err(ServingError::InvalidInput(format!("Model `{}` is no detector.", self.name))),
        }
    }
}

impl Drop for ModelVersion {
    /// Whoever asks a version holds it until it is answered: what is dropped has nothing to answer any more.
    fn drop(&mut self) {
        if let (Some(scheduler), Some(retirement)) = (self.scheduler.take(), self.retirement.take()) {
            retirement.retire(&self.name, scheduler, self.kept.take(), self.sandbox.take());
        }
    }
}
