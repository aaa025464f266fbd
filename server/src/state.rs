//! What the faces share: the models, which come and go, and whether the server can work.

use crate::audit::AuditLog;
use crate::error::ServingError;
use crate::inference::offload::Offload;
use crate::metrics::Metrics;
use crate::repository::{ModelRepository, ModelVersion};
use sandbox::Sandbox;
use service_kit::{Readiness, Shutdown};
use std::sync::{Arc, OnceLock};

/// Shared by all handlers. The ports answer before the repository is open, so it comes later.
pub(crate) struct ServingState {
    models: OnceLock<Arc<ModelRepository>>,
    pub(crate) sandbox: Sandbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: AuditLog,
    /// Where work goes that would hold up an async thread.
    pub(crate) offload: Offload,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl ServingState {
    pub(crate) fn new(
        sandbox: Sandbox,
        metrics: Arc<Metrics>,
        audit: AuditLog,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            models: OnceLock::new(),
            sandbox,
            metrics,
            audit,
            offload: Offload::new(),
            readiness,
            shutdown,
        }
    }

    /// Gives the handlers their models, loaded or not; only the first call counts.
    pub(crate) fn set_models(&self, models: Arc<ModelRepository>) {
        let _ = self.models.set(models);
    }

    /// The models.
    ///
    /// # Errors
    /// `Unavailable` while the repository is being opened.
    pub(crate) fn models(&self) -> Result<&ModelRepository, ServingError> {
        self.models.get().map(AsRef::as_ref).ok_or_else(|| {
            ServingError::Unavailable(
                "The models are still being loaded: try again in a few seconds.".to_owned(),
            )
        })
    }

    /// The model `name` (empty: the default one) in `version` (empty: the newest one).
    ///
    /// # Errors
    /// As [`ServingState::models`] and [`ModelRepository::get`].
    pub(crate) fn model(&self, name: &str, version: &str) -> Result<Arc<ModelVersion>, ServingError> {
        self.models()?.get(name, version)
    }

    /// Whether requests can be answered now and will be for a while.
    pub(crate) fn is_ready(&self) -> bool {
        self.not_ready_because().is_none()
    }

    /// A sentence that says why [`ServingState::is_ready`] is false.
    pub(crate) fn not_ready_because(&self) -> Option<String> {
        if self.shutdown.is_draining() {
            return Some("The server is stopping.".to_owned());
        }
        let waiting_for = self.readiness.waiting_for();
        (!waiting_for.is_empty()).then(|| format!("The server is waiting for: {}.", waiting_for.join(", ")))
    }

    /// Tells handlers of endless calls when to end them.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
