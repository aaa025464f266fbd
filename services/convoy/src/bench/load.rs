//! How much is offered: loads as they are written on the command line.

use std::fmt;
use std::str::FromStr;

/// The rate of an open loop: `300` requests a second, or `2x` what raw ONNX Runtime carries in the same round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    PerSecond(f64),
    OfCapacity(f64),
}

/// A word that is no [`Rate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected requests a second, such as 300, or a multiple of raw ONNX Runtime's throughput, such as 2x"
)]
pub(super) struct ParseRateError;

impl Rate {
    /// Requests a second, where raw ONNX Runtime carries `capacity`.
    pub(super) fn per_second(self, capacity: f64) -> f64 {
        match self {
            Self::PerSecond(rate) => rate,
            Self::OfCapacity(multiple) => multiple * capacity,
        }
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let text = text.trim();
        let (number, rate): (_, fn(f64) -> Self) = match text.strip_suffix(['x', 'X']) {
            Some(multiple) => (multiple, Self::OfCapacity),
            None => (text, Self::PerSecond),
        };
        let number: f64 = number.parse().map_err(|_| ParseRateError)?;
        if (0.001..=1e6).contains(&number) { Ok(rate(number)) } else { Err(ParseRateError) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
            Self::OfCapacity(multiple) => write!(f, "{multiple}x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_multiples() {
        assert_eq!("300".parse(), Ok(Rate::PerSecond(300.0)));
        assert_eq!("2x".parse(), Ok(Rate::OfCapacity(2.0)));
        assert_eq!(" 0.5X ".parse(), Ok(Rate::OfCapacity(0.5)));
        for text in ["", "x", "-1", "0", "0x", "NaN", "infx", "2 x 3", "1e9"] {
            assert_eq!(text.parse::<Rate>(), Err(ParseRateError), "{text}");
        }
        assert_eq!(Rate::OfCapacity(2.0).per_second(131.0), 262.0);
        assert_eq!(Rate::PerSecond(40.0).per_second(131.0), 40.0);
        assert_eq!(
            (Rate::OfCapacity(2.0).to_string(), Rate::PerSecond(1.5).to_string()),
            ("2x".into(), "1.5/s".into())
        );
    }
}
