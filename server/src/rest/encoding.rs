//! The content encodings that a request has and that its answer may have.

use crate::inference::compression::Encoding;
use http::{HeaderMap, HeaderName, HeaderValue, header};

fn named(name: &str) -> Option<Encoding> {
    match name {
        "gzip" | "x-gzip" => Some(Encoding::Gzip),
        "deflate" => Some(Encoding::Deflate),
        _ => None,
    }
}

/// How the body of a request is encoded. The error is the encoding that is not known here.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, String> {
    let mut words = words(headers, header::CONTENT_ENCODING).filter(|word| !word.is_empty());
    let first = words.find(|word| word != "identity");
    match (&first, words.find(|word| word != "identity")) {
        (None, _) => Ok(None),
        (Some(name), None) => named(name).map(Some).ok_or_else(|| name.clone()),
        (Some(first), Some(second)) => Err(format!("{first}, {second}")),
    }
}

/// The encoding that a client prefers for an answer; none unless it says so.
pub(super) fn for_answer(headers: &HeaderMap) -> Option<Encoding> {
    let mut best: Option<(Encoding, f32)> = None;
    for word in words(headers, header::ACCEPT_ENCODING) {
        let mut parts = word.split(';').map(str::trim);
        let Some(encoding) = parts.next().and_then(named) else { continue };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok()).unwrap_or(1.0_f32);
        // Of equals the first; a quality of 0 (or NaN) is a refusal.
        if quality > best.map_or(0.0, |(_, quality)| quality) {
            best = Some((encoding, quality));
        }
    }
    best.map(|(encoding, _)| encoding)
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
    use super::*;

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
            assert_eq!(for_answer(&headers(header::ACCEPT_ENCODING, value)), expected, "{value}");
        }
    }

    #[test]
    fn one_known_encoding_is_read_and_others_are_named() {
        let of = |value| of_request(&headers(header::CONTENT_ENCODING, value));
        assert_eq!(of("identity"), Ok(None));
        assert_eq!(of("x-gzip"), Ok(Some(Encoding::Gzip)));
        assert_eq!(of("Deflate"), Ok(Some(Encoding::Deflate)));
        assert_eq!(of("br"), Err("br".to_owned()));
        assert_eq!(of("gzip, gzip"), Err("gzip, gzip".to_owned()));
        assert_eq!(of_request(&HeaderMap::new()), Ok(None));
    }
}
