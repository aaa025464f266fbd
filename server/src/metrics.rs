//! Metrics for Prometheus, in a registry of ours: under Triton's names what Triton counts, with Triton's meaning,
//! and under `convoy_` what it does not.
//!
//! Triton's durations are sums over requests: each request of a batch adds the whole batch's compute times.

mod families;
mod ready;
mod version;

use crate::gpu::{GpuHealth, GpuMonitor, Gpus};
use crate::scheduler::{BatchReport, ModelLabels, RequestReport, ServingObserver};
use families::Families;
use prometheus::core::Collector;
use prometheus::{Encoder as _, IntCounterVec, Opts, Registry, TextEncoder};
use ready::Ready;
use sandbox::{SandboxError, Verdict};
use service_kit::{ErrorCode, Readiness};
use std::sync::Arc;
use std::time::Duration;
use version::VersionMetrics;

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every metric of model-serving.
pub(crate) struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    sandbox_images: IntCounterVec,
}

impl Metrics {
    /// All metrics, without a model, in a registry of their own.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Arc::new(Families::register(&registry)?);
        let images = Opts::new("convoy_sandbox_images_total", "Images given to the sandbox by its verdict");
        let sandbox_images = IntCounterVec::new(images, &["verdict"])?;
        for verdict in Verdict::ALL {
            sandbox_images.with_label_values(&[verdict.as_str()]);
        }
        registry.register(Box::new(sandbox_images.clone()))?;
        Ok(Self { registry, families, sandbox_images })
    }

    /// Renders `collector` from now on, too.
    pub(crate) fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// Tells from now on whether this server is ready.
    pub(crate) fn watch_readiness(&self, readiness: Readiness) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Ready::new(readiness)?))
    }

    /// Adds the GPUs' metrics where there is a driver, and reads them until the answer is dropped; `health` is told which
    /// of them are lost.
    pub(crate) fn watch_gpus(&self, health: &GpuHealth) -> Result<Option<GpuMonitor>, prometheus::Error> {
        match Gpus::open() {
            Ok(gpus) => GpuMonitor::start(gpus, &self.registry, health.clone()).map(Some),
            Err(reason) => {
                tracing::info!(%reason, "There are no metrics of GPUs");
                Ok(None)
            }
        }
    }

    /// Everything in Prometheus's text format.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Counts an image that the sandbox was given.
    pub(crate) fn image_seen<T>(&self, result: &Result<T, SandboxError>) {
        self.sandbox_images.with_label_values(&[Verdict::of(result).as_str()]).inc();
    }
}

/// Each version has an observer of its own; what is told here is told of none.
impl ServingObserver for Metrics {
    fn request_succeeded(&self, _: ModelLabels<'_>, _: &RequestReport) {}
    fn request_failed(&self, _: ModelLabels<'_>, _: ErrorCode) {}
    fn request_abandoned(&self, _: ModelLabels<'_>) {}
    fn batch_executed(&self, _: ModelLabels<'_>, _: &BatchReport) {}
    fn pending_requests(&self, _: ModelLabels<'_>, _: usize) {}

    fn of_version(&self, labels: ModelLabels<'_>) -> Option<Arc<dyn ServingObserver>> {
        Some(Arc::new(VersionMetrics::new(&self.families, labels)))
    }
}

/// Triton's values of the label `reason`.
#[derive(Clone, Copy)]
enum FailureReason {
    /// It was not run for want of room or time.
    Rejected,
    /// The caller went away.
    Canceled,
    /// The model failed.
    Backend,
    /// Anything else, such as a request that does not fit the model.
    Other,
}

impl FailureReason {
    const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }

    const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Overloaded | ErrorCode::DeadlineExceeded | ErrorCode::Unavailable => Self::Rejected,
            ErrorCode::Internal => Self::Backend,
            ErrorCode::InvalidInput
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::TooLarge => Self::Other,
        }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
