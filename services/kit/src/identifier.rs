//! The rule for request and user ids: any Unicode up to 256 bytes, and nothing that breaks a path or a log line.

/// The longest id, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// The text has no characters.
    #[error("is empty")]
    Empty,
    /// The text is longer than [`MAX_BYTES`].
    #[error("is {0} bytes long; 256 are allowed")]
    TooLong(usize),
    /// `.` and `..`: a URL that ends in them names another path.
    #[error("may not be `.` or `..`")]
    Dots,
    /// A control character (Unicode's Cc), which would break log lines and terminals.
    #[error("has the control character U+{:04X}", *.0 as u32)]
    Control(char),
}

/// Checks `id` against the rule.
///
/// # Errors
/// Says which part of the rule it breaks. The text reads on from the field's name: `user_id is empty`.
pub fn validate(id: &str) -> Result<(), IdentifierError> {
    if id.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if id.len() > MAX_BYTES {
        return Err(IdentifierError::TooLong(id.len()));
    }
    if id == "." || id == ".." {
        return Err(IdentifierError::Dots);
    }
    match id.chars().find(|c| c.is_control()) {
        Some(c) => Err(IdentifierError::Control(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_unicode_is_an_id() {
        for id in ["a", "user 7", "ユーザー", "a/b?c#d%", "...", "🚌", &"x".repeat(256)] {
            assert_eq!(validate(id), Ok(()), "{id}");
        }
    }

    #[test]
    fn what_breaks_paths_and_logs_is_refused() {
        assert_eq!(validate(""), Err(IdentifierError::Empty));
        assert_eq!(validate("."), Err(IdentifierError::Dots));
        assert_eq!(validate(".."), Err(IdentifierError::Dots));
        assert_eq!(validate("a\nb"), Err(IdentifierError::Control('\n')));
        assert_eq!(validate("a\u{0}"), Err(IdentifierError::Control('\u{0}')));
        assert_eq!(validate("a\u{85}"), Err(IdentifierError::Control('\u{85}')));
        // 86 characters of three bytes: the limit counts bytes.
        assert_eq!(validate(&"ユ".repeat(86)), Err(IdentifierError::TooLong(258)));
    }

    #[test]
    fn the_error_reads_as_a_sentence() {
        assert_eq!(IdentifierError::Control('\n').to_string(), "has the control character U+000A");
    }
}
