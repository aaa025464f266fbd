//! The store's time.

use jiff::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};

/// Microseconds since 1970 that only go forwards: each reading is later than every earlier one, than all that is
/// stored and than every erasure, even when the system's clock is set back. So "stored before the erasure" is what
/// comparing two times says.
#[derive(Debug)]
pub(super) struct Clock {
    last: AtomicI64,
}

impl Clock {
    /// A clock that is ahead of `last`.
    pub(super) fn after(last: i64) -> Self {
        let ahead = last.saturating_sub(Timestamp::now().as_microsecond());
        if ahead > 3_600_000_000 {
            tracing::warn!(
                ahead_seconds = ahead / 1_000_000,
                "the system's clock is behind what is stored: new predictions are dated after the stored ones"
            );
        }
        Self { last: AtomicI64::new(last) }
    }

    /// The present.
    pub(super) fn now(&self) -> i64 {
        let system = Timestamp::now().as_microsecond();
        let next = |last: i64| system.max(last.saturating_add(1));
        let last = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        // The closure always gives a value, so this is the value before.
        next(last.unwrap_or_else(|last| last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_near_the_systems_and_never_stands_still() {
        let clock = Clock::after(0);
        let system = Timestamp::now().as_microsecond();
        let mut last = clock.now();
        assert!((system..system + 60_000_000).contains(&last));
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now > last);
            last = now;
        }
    }

    #[test]
    fn it_goes_on_after_what_is_stored_though_the_systems_clock_is_behind() {
        let stored = Timestamp::now().as_microsecond() + 7_200_000_000;
        assert_eq!(Clock::after(stored).now(), stored + 1);
    }
}
