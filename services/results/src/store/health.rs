//! Whether the database takes writes, as the service's readiness.

use super::error::StoreError;
use service_kit::{Hold, Readiness};

/// Holds the service's readiness from a failed write to the next that works.
pub(super) struct Health {
    readiness: Readiness,
    outage: Option<(StoreError, Hold)>,
}

impl Health {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { readiness, outage: None }
    }

    pub(super) fn is_good(&self) -> bool {
        self.outage.is_none()
    }

    pub(super) fn set_good(&mut self) {
        if self.outage.take().is_some() {
            tracing::info!("the database takes writes again");
        }
    }

    pub(super) fn set_bad(&mut self, cause: StoreError) {
        if self.outage.as_ref().is_none_or(|(known, _)| *known != cause) {
            self.outage = Some((cause, self.readiness.hold(cause.to_string())));
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Only a restart helps, and until then this must be seen.
            tracing::error!("the database's writer has failed; restart the service");
            std::mem::forget(self.readiness.hold("the database's writer has failed"));
        }
    }
}
