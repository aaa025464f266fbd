//! Instants as text: RFC 3339 in UTC, to the microsecond.

use jiff::Timestamp;

/// The present as RFC 3339 in UTC with six fractional digits: `2026-11-23T09:14:55.000123Z`.
///
/// The digits are always six, so that the texts sort as the instants do.
pub fn now_rfc3339() -> String {
    to_rfc3339(Timestamp::now())
}

/// `instant` in the form of [`now_rfc3339`].
pub fn to_rfc3339(instant: Timestamp) -> String {
    format!("{instant:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_always() {
        let instant = Timestamp::from_second(1_700_000_000).expect("in range");
        assert_eq!(to_rfc3339(instant), "2023-11-14T22:13:20.000000Z");
    }
}
