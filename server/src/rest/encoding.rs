//! The content encodings gzip and deflate (in HTTP: zlib's format) of requests and answers.

use crate::error::ServingError;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::io::{self, Read, Write};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// Its word in headers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// How the body of a request is encoded. The error is the encoding that is not known here.
    pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut named = words(headers, header::CONTENT_ENCODING).filter(|word| !word.is_empty());
        let first = named.find(|word| word != "identity");
        match (&first, named.find(|word| word != "identity")) {
            (None, _) => Ok(None),
            (Some(name), None) => Self::named(name).map(Some).ok_or_else(|| name.clone()),
            (Some(first), Some(second)) => Err(format!("{first}, {second}")),
        }
    }

    /// The encoding that a client prefers for an answer; none unless it says so.
    pub(super) fn for_answer(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        for word in words(headers, header::ACCEPT_ENCODING) {
            let mut parts = word.split(';').map(str::trim);
            let Some(encoding) = parts.next().and_then(Self::named) else { continue };
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok()).unwrap_or(1.0_f32);
            // Of equals the first; a quality of 0 (or NaN) is a refusal.
            if quality > best.map_or(0.0, |(_, quality)| quality) {
                best = Some((encoding, quality));
            }
        }
        best.map(|(encoding, _)| encoding)
    }

    /// Decodes a body that may have at most `limit` bytes. Takes time: run it through
    /// [`Offload`](crate::inference::offload::Offload).
    ///
    /// # Errors
    /// `InvalidInput` for data that is not so encoded, or is cut off; `TooLarge` for more than `limit`: what is over
    /// it is not made.
    pub(super) fn decode(self, body: &[u8], limit: usize) -> Result<Bytes, ServingError> {
        let decoder: &mut dyn Read = match self {
            Self::Gzip => &mut MultiGzDecoder::new(body),
            Self::Deflate => &mut ZlibDecoder::new(body),
        };
        let mut decoded = Vec::new();
        let over = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        decoder.take(over).read_to_end(&mut decoded).map_err(|error| {
            ServingError::InvalidInput(format!(
                "The request body is not valid {} data: {error}.",
                self.as_str()
            ))
        })?;
        if decoded.len() > limit {
            return Err(ServingError::TooLarge(format!(
                "The request body has more than {limit} bytes once it is decompressed: send less at once."
            )));
        }
        Ok(decoded.into())
    }

    /// Encodes the `parts` of a body, one after the other. Takes time, as decoding does.
    ///
    /// # Errors
    /// Never in practice: it writes to memory.
    pub(super) fn encode(self, parts: &[Bytes]) -> io::Result<Bytes> {
        // The fastest level: the network that needs compression is slower than any level, but the server is not idle.
        let level = Compression::fast();
        let write = |out: &mut dyn Write| parts.iter().try_for_each(|part| out.write_all(part));
        let encoded = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                write(&mut encoder)?;
                encoder.finish()?
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                write(&mut encoder)?;
                encoder.finish()?
            }
        };
        Ok(encoded.into())
    }
}

/// The words of a header that is a list, in small letters.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value: &HeaderValue| value.to_str().unwrap_or("unreadable").to_ascii_lowercase())
        .collect();
    values
        .into_iter()
        .flat_map(|value| value.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_clients_preference_is_read() {
        for (value, expected) in [
            ("", None),
            ("identity", None),
            ("br, *", None),
            ("gzip", Some(Encoding::Gzip)),
            ("deflate, gzip", Some(Encoding::Deflate)),
            ("deflate;q=0.5, GZIP; q=0.8", Some(Encoding::Gzip)),
            ("gzip;q=0, deflate;q=0.001", Some(Encoding::Deflate)),
            ("gzip;q=0", None),
            ("gzip;q=NaN", None),
        ] {
            assert_eq!(Encoding::for_answer(&headers(header::ACCEPT_ENCODING, value)), expected, "{value}");
        }
    }

    #[test]
    fn one_known_encoding_is_read_and_others_are_named() {
        let of = |value| Encoding::of_request(&headers(header::CONTENT_ENCODING, value));
        assert_eq!(of("identity"), Ok(None));
        assert_eq!(of("x-gzip"), Ok(Some(Encoding::Gzip)));
        assert_eq!(of("Deflate"), Ok(Some(Encoding::Deflate)));
        assert_eq!(of("br"), Err("br".to_owned()));
        assert_eq!(of("gzip, gzip"), Err("gzip, gzip".to_owned()));
        assert_eq!(Encoding::of_request(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit_and_what_is_cut_off_or_no_data_too() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = encoding.encode(&[vec![0; 10 << 20].into()]).unwrap();
            assert!(bomb.len() < 100 << 10);
            assert!(matches!(encoding.decode(&bomb, 1 << 20), Err(ServingError::TooLarge(_))));
            assert_eq!(encoding.decode(&bomb, 10 << 20).unwrap().len(), 10 << 20);
            for broken in [&bomb[..bomb.len() / 2], b"", b"no such data"] {
                assert!(matches!(encoding.decode(broken, 100 << 20), Err(ServingError::InvalidInput(_))));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..4)) {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let whole = parts.concat();
                let parts: Vec<Bytes> = parts.iter().cloned().map(Bytes::from).collect();
                let encoded = encoding.encode(&parts).unwrap();
                prop_assert_eq!(&encoding.decode(&encoded, whole.len()).unwrap()[..], &whole);
            }
        }
    }
}
