//! What the layers know about a call and its handler needs.

use crate::inference::Caller;
use crate::limits::Permit;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// One gRPC call, as its headers describe it. The [deadline layer](super::deadline) puts it into the request's
/// extensions; [`Call::of`] finds it there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// When the caller stops waiting; absent when it waits for ever.
    pub(crate) deadline: Option<Instant>,
    /// The W3C trace context as it came; only ever logged.
    pub(crate) traceparent: Option<String>,
    request_id: Arc<OnceLock<String>>,
    /// The memory it holds, as the [admission layer](super::admission) counts it.
    permit: Option<Permit>,
}

impl Call {
    pub(super) fn new(deadline: Option<Instant>, traceparent: Option<String>) -> Self {
        Self { deadline, traceparent, ..Self::default() }
    }

    /// Another request of the same call, not named yet, with a permit of its own: of the call's, `bytes` go over to
    /// it, which the request holds.
    pub(super) fn another(&self, permit: Permit, bytes: usize) -> Self {
        permit.count(bytes);
        if let Some(shared) = &self.permit {
            shared.give_back(bytes);
        }
        Self { request_id: Arc::default(), permit: Some(permit), ..self.clone() }
    }

    /// Counts what the call holds into `permit`.
    pub(super) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// From now on the call holds an answer of `bytes`, and nothing of its request.
    pub(crate) fn answered(&self, bytes: usize) {
        if let Some(permit) = &self.permit {
            permit.answered(bytes);
        }
    }

    /// The call that `request` belongs to; one without a deadline if it did not come through the layer.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Tells the layer which request this is, for the log line of a call whose deadline passes.
    pub(crate) fn name(&self, request_id: &str) {
        // Named twice, the first stays: a call is one request.
        let _ = self.request_id.set(request_id.to_owned());
    }

    /// The id that the handler found in the message, if it came that far.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.request_id.get().map(String::as_str)
    }

    /// What an inference needs to know of it.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller {
            deadline: self.deadline,
            traceparent: self.traceparent.as_deref(),
            permit: self.permit.as_ref(),
        }
    }
}
