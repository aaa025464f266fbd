//! Base64 as clients really send it: line breaks and spaces inside, padding or none, the standard alphabet of RFC 4648.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        // Some encoders leave bits set in the last character; they carry no data.
        .with_decode_allow_trailing_bits(true),
);

/// A text that is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    /// A character outside the alphabet, with its place in the text as it was sent.
    #[error("is not base64: byte {offset} is 0x{byte:02X}")]
    InvalidByte {
        /// Bytes before it in the text as sent.
        offset: usize,
        /// The byte found there.
        byte: u8,
    },
    /// The text ends inside a group of four characters, or its padding is wrong.
    #[error("is not base64: it is cut off or wrongly padded")]
    InvalidLength,
}

/// Decodes `text`, skipping ASCII white space; padding is optional.
///
/// # Errors
/// Says where the text stops being base64. The text reads on from the field's name: `image is not base64: …`.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let bytes = text.as_bytes();
    // What most clients send, in vectors. Whatever that refuses is decoded, or found wrong, below.
    if let Ok(decoded) = base64_simd::STANDARD.decode_to_vec(bytes) {
        return Ok(decoded);
    }
    if bytes.iter().any(u8::is_ascii_whitespace) {
        let compact: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        decode_compact(&compact).map_err(|e| at_original_offset(e, bytes))
    } else {
        decode_compact(bytes)
    }
}

fn decode_compact(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    LENIENT.decode(text).map_err(|error| match error {
        base64::DecodeError::InvalidByte(offset, byte)
        | base64::DecodeError::InvalidLastSymbol(offset, byte) => Base64Error::InvalidByte { offset, byte },
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
            Base64Error::InvalidLength
        }
    })
}

fn at_original_offset(error: Base64Error, original: &[u8]) -> Base64Error {
    match error {
        Base64Error::InvalidByte { offset, byte } => {
            let place = original.iter().enumerate().filter(|(_, b)| !b.is_ascii_whitespace()).nth(offset);
            Base64Error::InvalidByte { offset: place.map_or(offset, |(i, _)| i), byte }
        }
        Base64Error::InvalidLength => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_white_space_do_not_matter() {
        for text in ["Q29udm95IQ==", "Q29udm95IQ", "Q29u\r\ndm95\r\nIQ==\r\n", " Q 2 9\tudm95IQ = ="] {
            assert_eq!(decode(text).as_deref(), Ok(b"Convoy!".as_slice()), "{text:?}");
        }
        assert_eq!(decode(""), Ok(Vec::new()));
    }

    #[test]
    fn every_length_comes_back_whatever_way_it_is_decoded() {
        let bytes: Vec<u8> = (0..600_u32).map(|at| ((at * 151) >> 3) as u8).collect();
        for length in 0..bytes.len() {
            let padded = base64::engine::general_purpose::STANDARD.encode(&bytes[..length]);
            let bare = padded.trim_end_matches('=').to_owned();
            let broken = format!("{padded}\n");
            for text in [padded, bare, broken] {
                assert_eq!(decode(&text).as_deref(), Ok(&bytes[..length]), "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_character_is_found_wherever_it_is() {
        let text = "QUJD".repeat(50);
        for at in 0..text.len() {
            for wrong in ["-", "\u{7f}", "_", "="] {
                let mut text = text.clone();
                text.replace_range(at..=at, wrong);
                // Padding at the end is none too many where four characters are then too few.
                if wrong != "=" || at + 1 < text.len() {
                    assert!(decode(&text).is_err(), "{text}");
                }
            }
        }
    }

    #[test]
    fn the_place_is_that_of_the_text_as_sent() {
        assert_eq!(decode("Q29*"), Err(Base64Error::InvalidByte { offset: 3, byte: b'*' }));
        assert_eq!(decode("Q2\n9*"), Err(Base64Error::InvalidByte { offset: 4, byte: b'*' }));
        assert_eq!(decode("Q29ud"), Err(Base64Error::InvalidLength));
        assert!(decode("https://example.test/photo.jpg").is_err());
    }
}
