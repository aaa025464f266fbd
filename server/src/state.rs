//! What the faces share: the models, which come and go, and whether the server can work.

use crate::audit::AuditLog;
use crate::config::Config;
use crate::error::ServingError;
use crate::grpc::STREAMS_TO_FILL_A_CONNECTION;
use crate::inference::offload::Offload;
use crate::limits::{self, Due, EarlyRefusals, HeldBack, InFlight, Progress, Reason, Unread};
use crate::metrics::Metrics;
use crate::repository::{ModelRepository, ModelVersion};
use sandbox::Sandbox;
use service_kit::{ErrorCode, Readiness, Shutdown};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The part of `--max-inflight-bytes` that is left to what is not counted (one over this): what connections buffer
/// before it is a body, and what the allocator loses. 500 callers who trickle large bodies, each on a connection of its own,
/// need a twenty-fifth, their own side included (`make test-memory`).
const UNCOUNTED: usize = 16;

/// Shared by all handlers. The ports answer before the repository is open, so it comes later.
pub(crate) struct ServingState {
    models: OnceLock<Arc<ModelRepository>>,
    sandbox: Sandbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: AuditLog,
    /// Where work goes that would hold up an async thread.
    pub(crate) offload: Offload,
    /// The memory that requests may hold together.
    pub(crate) in_flight: InFlight,
    /// Counts requests that were refused before all of them was read.
    pub(crate) early_refusals: EarlyRefusals,
    body_timeout: Option<Duration>,
    /// Answers that wait to be read.
    pub(crate) unread: Unread,
    /// Streams over gRPC that are not read just now.
    pub(crate) held_back: HeldBack,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl ServingState {
    pub(crate) fn new(
        sandbox: Sandbox,
        metrics: Arc<Metrics>,
        audit: AuditLog,
        config: &Config,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<Self, prometheus::Error> {
        let max_inflight_bytes = config.max_inflight_bytes.get();
        let in_flight = InFlight::new(max_inflight_bytes - max_inflight_bytes / UNCOUNTED);
        let unread = Unread::new(config.answer_timeout.limit())?;
        metrics.register(unread.collector())?;
        metrics.register(limits::collector(in_flight.clone())?)?;
        metrics.watch_readiness(readiness.clone())?;
        let early_refusals = EarlyRefusals::new()?;
        metrics.register(early_refusals.collector())?;
        Ok(Self {
            models: OnceLock::new(),
            sandbox,
            metrics,
            audit,
            offload: Offload::new(),
            in_flight,
            early_refusals,
            body_timeout: config.body_timeout.limit(),
            unread,
            held_back: HeldBack::new(STREAMS_TO_FILL_A_CONNECTION),
            readiness,
            shutdown,
        })
    }

    /// The sandbox of `model`, its own or the one that all share, for one image: what its guest takes is counted among the
    /// memory that requests hold, until the guest ends, which may be after its caller has gone.
    pub(crate) fn metered_sandbox(&self, model: &ModelVersion) -> Sandbox {
        model.sandbox().unwrap_or(&self.sandbox).metered(Arc::new(self.in_flight.permit()))
    }

    /// How long a new request's body is waited for.
    pub(crate) fn progress(&self, due: Due) -> Progress {
        Progress::new(self.body_timeout, due, self.early_refusals.clone())
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

    /// Whether a request is refused whatever is in it, so that its body need not be read: because the models are not
    /// loaded yet, because requests in progress hold all the memory they may, or because `model` (its name and version;
    /// `None`: each model) could not answer it in time. Counts what it refuses, and for the model if it is known which.
    pub(crate) fn refuses_early(
        &self,
        model: Option<(&str, &str)>,
        deadline: Option<Instant>,
    ) -> Option<ServingError> {
        let models = match self.models() {
            Ok(models) => models,
            Err(loading) => return Some(loading),
        };
        let asked = match model {
            // One that is not there is said to be so by whoever looks for it.
            Some((name, version)) => models.get(name, version).into_iter().collect(),
            None => models.versions(),
        };
        let error = if self.in_flight.is_crowded() {
            self.early_refusals.count(Reason::Memory);
            self.in_flight.refusal()
        } else {
            let refusals = asked.iter().map(|version| version.would_refuse(deadline));
            let error = mildest(refusals.collect::<Option<_>>()?)?;
            self.early_refusals.count(Reason::of(&error));
            error
        };
        if let [version] = &asked[..] {
            version.count_failure(error.code());
        }
        Some(error)
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

/// Of all models' refusals the one that says most for coming again: which model the request is for, nobody knows yet.
fn mildest(refusals: Vec<ServingError>) -> Option<ServingError> {
    let (again, never): (Vec<_>, Vec<_>) =
        refusals.into_iter().partition(|error| error.code() == ErrorCode::Overloaded);
    again.into_iter().min_by_key(ServingError::retry_after).or_else(|| never.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_all_models_is_told_as_the_one_that_ends_first() {
        let hopeless = ServingError::DeadlineExceeded("The deadline is too short.".to_owned());
        let full = |seconds| ServingError::Overloaded {
            detail: "The queue is full".to_owned(),
            retry_after: Duration::from_secs(seconds),
        };
        assert_eq!(mildest(vec![hopeless.clone(), full(2), full(1)]), Some(full(1)));
        assert_eq!(mildest(vec![hopeless.clone()]), Some(hopeless));
        assert_eq!(mildest(vec![]), None, "without a model nothing is refused");
    }
}
