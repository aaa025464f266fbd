//! Settings with units: durations, and limits of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text that is no value of a setting. It says what is expected, for the command line to put behind the flag's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ParseUnitError(&'static str);

/// A limit of time: a duration with its unit, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit(Option<Duration>);

impl TimeLimit {
    /// The latency objective: one second, at which few load tools ever meet a refusal.
    pub const SLO: Self = Self(Some(Duration::from_secs(1)));
    /// The time for the next part of a request's body: ten seconds.
    pub const BODY: Self = Self(Some(Duration::from_secs(10)));

    /// The time to read the next part of an answer: one minute, as nginx's `send_timeout`.
    pub const ANSWER: Self = Self(Some(Duration::from_secs(60)));

    /// The limit; `None`: there is none.
    pub const fn limit(self) -> Option<Duration> {
        self.0
    }
}

impl From<Option<Duration>> for TimeLimit {
    fn from(limit: Option<Duration>) -> Self {
        Self(limit)
    }
}

impl FromStr for TimeLimit {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let expected = ParseUnitError("a duration with its unit, such as 100ms or 1s, or `none`");
        duration(text).map(|limit| Self(Some(limit))).map_err(|_| expected)
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => write!(f, "{limit:?}"),
            None => f.write_str("none"),
        }
    }
}

/// Reads a duration with its unit: `500ms`, `2s`, `1m 30s`.
///
/// # Errors
/// With what is expected.
pub(super) fn duration(text: &str) -> Result<Duration, ParseUnitError> {
    let expected = ParseUnitError("a duration with its unit, such as 500ms, 2s or 1m 30s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| expected.clone())?;
    Duration::try_from(duration).map_err(|_| expected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        for slo in ["none", "100ms", "1s", "1.5s"] {
            let slo: TimeLimit = slo.parse().unwrap();
            assert_eq!(slo.to_string().parse(), Ok(slo), "{slo}");
        }
        assert_eq!(TimeLimit::SLO.to_string(), "1s");
    }

    #[test]
    fn a_limit_of_time_needs_a_unit() {
        assert_eq!("NONE".parse(), Ok(TimeLimit(None)));
        assert_eq!("100ms".parse(), Ok(TimeLimit(Some(Duration::from_millis(100)))));
        for text in ["100", "-1s", "soon", ""] {
            assert!(text.parse::<TimeLimit>().is_err(), "{text}");
        }
    }
}
