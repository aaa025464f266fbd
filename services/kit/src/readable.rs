//! Texts with callers' words in them, made fit for an answer and for one line of a log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest such text, in bytes: a sentence with its cause is far shorter.
pub const MAX_TEXT_BYTES: usize = 1024;

/// `text`, cut after [`MAX_TEXT_BYTES`], with its control characters escaped.
///
/// Parsers quote what they did not expect, and that may be megabytes of somebody's photo: it belongs neither into the
/// answer nor into the log, whose lines a line break in it could forge.
pub fn readable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut short = String::with_capacity(text.len().min(MAX_TEXT_BYTES) + 32);
    for character in text.chars() {
        if short.len() + character.len_utf8() > MAX_TEXT_BYTES {
            // A String takes all that is written to it.
            let _ = write!(short, "… ({} bytes).", text.len());
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_words_stay_short_and_on_one_line() {
        let sentence = "There is no model `ü` here.";
        assert!(matches!(readable(sentence), Cow::Borrowed(same) if same == sentence));
        assert_eq!(readable("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        for (long, bytes) in [("ü".repeat(1_000_000), 2_000_000), ("\n".repeat(1_000_000), 1_000_000)] {
            let short = readable(&long);
            assert!(short.len() < MAX_TEXT_BYTES + 32, "{}", short.len());
            assert!(short.ends_with(&format!("… ({bytes} bytes).")), "{short}");
        }
    }
}
