//! Settings with units: durations, sizes, and limits of time.

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

/// A number of bytes, written plainly or with a unit: `512MiB`, `2 GiB`, `64k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

/// The units by their names in lower case: those of 1024 with an `i`, those of 1000 without; a letter alone is of 1024.
const UNITS: [(&str, u64); 12] = [
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
];

impl ByteSize {
    /// This many GiB.
    pub const fn gib(count: usize) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl From<usize> for ByteSize {
    fn from(bytes: usize) -> Self {
        Self(bytes)
    }
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let scale = match unit.as_str() {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale),
        };
        number
            .parse::<u64>()
            .ok()
            .zip(scale)
            .and_then(|(number, scale)| number.checked_mul(scale))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(Self)
            .ok_or(ParseUnitError("a number of bytes, or one with a unit such as 512MiB or 2GiB"))
    }
}

/// In the largest unit that leaves nothing over.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
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
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("64k", 64 << 10),
            ("2g", 2 << 30),
            ("5MB", 5_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().get(), bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1 parsec", "99999999999GiB", "18446744073709551616"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for bytes in [0, 1, 1000, 1024, 3 << 20, 1 << 30, (1 << 30) + 1] {
            let size = ByteSize::from(bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        for slo in ["none", "100ms", "1s", "1.5s"] {
            let slo: TimeLimit = slo.parse().unwrap();
            assert_eq!(slo.to_string().parse(), Ok(slo), "{slo}");
        }
        assert_eq!((ByteSize::gib(1).to_string(), TimeLimit::SLO.to_string()), ("1GiB".into(), "1s".into()));
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
