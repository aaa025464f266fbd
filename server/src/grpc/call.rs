//! What the deadline layer knows about a call and its handler needs.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// One gRPC call, as its headers describe it. The [deadline layer](super::deadline) puts it into the request's
/// extensions; [`Call::of`] finds it there.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When the caller stops waiting; absent when it waits for ever.
    pub(crate) deadline: Option<Instant>,
    /// The W3C trace context as it came; only ever logged.
    pub(crate) traceparent: Option<String>,
    request_id: Arc<OnceLock<String>>,
}

impl Call {
    pub(super) fn new(deadline: Option<Instant>, traceparent: Option<String>) -> Self {
        Self { deadline, traceparent, request_id: Arc::default() }
    }

    /// Another request of the same call, not named yet.
    pub(super) fn another(&self) -> Self {
        Self::new(self.deadline, self.traceparent.clone())
    }

    /// The call that `request` belongs to; one without a deadline if it did not come through the layer.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self::new(None, None))
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

    /// The earlier of the call's own deadline and one `timeout` from `now`.
    pub(crate) fn deadline_within(&self, now: Instant, timeout: Option<Duration>) -> Option<Instant> {
        // A timeout too long to be an instant is no limit.
        let own = timeout.and_then(|timeout| now.checked_add(timeout));
        match (self.deadline, own) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let call = Call::new(Some(now + 2 * second), None);
        assert_eq!(call.deadline_within(now, Some(second)), Some(now + second));
        assert_eq!(call.deadline_within(now, Some(3 * second)), Some(now + 2 * second));
        assert_eq!(call.deadline_within(now, None), Some(now + 2 * second));
        assert_eq!(Call::new(None, None).deadline_within(now, Some(Duration::MAX)), None);
    }
}
