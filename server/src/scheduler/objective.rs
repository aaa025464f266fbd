//! What is said of the objective that is kept.

use std::time::Duration;

use super::shared::{Shared, State, milliseconds};

/// The log says at most so often that a longer objective is kept: on a device that is now slower and now faster than that takes,
/// it would say little else. The metric has each.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// When the log said last that a longer objective is kept.
#[derive(Debug, Default)]
pub(crate) struct ObjectiveLog(Option<Duration>);

impl ObjectiveLog {
    /// Whether it may say so now; then it is said.
    fn is_due(&mut self, now: Duration) -> bool {
        let due = self.0.is_none_or(|said| now >= said + SAY_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

impl Shared {
    /// Tells of the objective that is kept: at the start, and when the device has become slower or faster.
    pub(crate) fn tell_objective(&self, state: &mut State) {
        let (configured, kept) = (state.policy.configured_objective(), state.policy.objective());
        self.observer.objective(self.labels(), configured, kept);
        if let (Some(configured), Some(kept)) = (configured, kept)
            && kept > configured
            && state.objective_log.is_due(self.now())
        {
            tracing::warn!(
                model = %self.signature.model,
                version = %self.version,
                objective_ms = milliseconds(configured),
                kept_ms = milliseconds(kept),
                "The model is too slow for its latency objective; a longer one is kept for it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_said_once_a_minute() {
        let mut log = ObjectiveLog::default();
        let at = Duration::from_millis;
        let said = [0, 1, 59_999, 60_000, 60_001, 300_000].map(|ms| log.is_due(at(ms)));
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
