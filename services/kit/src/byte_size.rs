//! A number of bytes as a setting.

use std::fmt;
use std::str::FromStr;

/// A text that is no number of bytes. It says what is expected, for the command line to put behind the flag's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of bytes, or one with a unit such as 512MiB or 2GiB")]
pub struct ParseByteSizeError;

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
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, ParseByteSizeError> {
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
            .ok_or(ParseByteSizeError)
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
        assert_eq!(ByteSize::gib(1).to_string(), "1GiB");
    }
}
