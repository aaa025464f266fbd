//! What the layers know about a call and its handler needs.

use crate::error::ServingError;
use crate::inference::Caller;
use crate::limits::Permit;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// One gRPC call, as its headers describe it. The [deadline layer](super::deadline) puts it into the request's
/// extensions; [`Call::of`] finds it there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// When the caller stops waiting; absent when it waits for ever.
    pub(crate) deadline: Option<Instant>,
    /// When its headers came.
    arrived: Option<Instant>,
    /// The W3C trace context as it came; only ever logged.
    pub(crate) traceparent: Option<String>,
    /// The client's end of its connection.
    pub(super) connection: Option<SocketAddr>,
    request_id: Arc<OnceLock<String>>,
    /// The memory it holds, as the [admission layer](super::admission) counts it.
    permit: Option<Permit>,
}

impl Call {
    pub(super) fn new(arrived: Instant, deadline: Option<Instant>, traceparent: Option<String>) -> Self {
        Self { deadline, arrived: Some(arrived), traceparent, ..Self::default() }
    }

    /// Another request of the same call, not named yet, with a permit of its own.
    pub(super) fn another(&self, permit: Permit) -> Self {
        // The call came before it.
        Self { arrived: None, request_id: Arc::default(), permit: Some(permit), ..self.clone() }
    }

    /// Of what the call holds, the `bytes` of a message go over to `request`, which is [another](Self::another) of it.
    ///
    /// # Errors
    /// As [`Permit::grow`], when the call holds less than that and there is no room for the rest.
    pub(super) fn hand_over(&self, request: &Self, bytes: usize) -> Result<(), ServingError> {
        let (Some(own), Some(other)) = (&self.permit, &request.permit) else { return Ok(()) };
        other.grow(bytes - own.hand_over(other, bytes))
    }

    /// Nothing of the body is kept any more: what was counted of it is given back.
    pub(super) fn let_go(&self) {
        if let Some(permit) = &self.permit {
            permit.give_back(permit.bytes());
        }
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
            arrived: self.arrived,
            traceparent: self.traceparent.as_deref(),
            permit: self.permit.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::limits::InFlight;

    #[test]
    fn what_a_request_of_a_stream_holds_is_never_past_the_budget_and_never_anothers() {
        let budget = InFlight::new(100);
        let mut stream = Call::new(Instant::now(), None, None);
        stream.hold(budget.permit());
        let (shared, first) = (stream.permit.clone().unwrap(), stream.another(budget.permit()));
        // A message of 30 bytes came, and 20 of the next one.
        shared.grow(50).unwrap();
        stream.hand_over(&first, 30).unwrap();
        assert_eq!((shared.bytes(), first.permit.as_ref().unwrap().bytes(), budget.used()), (20, 30, 50));
        drop(first);
        assert_eq!((shared.bytes(), budget.used()), (20, 20), "what belongs to the next one stays counted");
        // One that is larger than what was counted for it finds no room.
        shared.grow(10).unwrap();
        let others = budget.permit();
        others.grow(60).unwrap();
        let second = stream.another(budget.permit());
        let error = stream.hand_over(&second, 50).unwrap_err();
        assert!(matches!(error, ServingError::Overloaded { .. }), "{error}");
        assert_eq!(budget.used(), 90);
        drop(second);
        assert_eq!(budget.used(), 60);
    }
}
