//! Request bodies: bounded in bytes, each and all together, and in time, and refused without cutting the client off.

mod frames;

use crate::Error;
use axum::body::Body;
use bytes::Bytes;
use frames::Frames;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use service_kit::http_server::discard;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Most bytes that the bodies of all open requests have together, unless one of the longest is more.
const MAX_TOTAL_BYTES: usize = 512 << 20;
/// A hint for clients: requests with large bodies take some tenths of a second each.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes.
    pub(crate) limit: usize,
    /// When the request must be done.
    pub(crate) deadline: Instant,
    /// The time from the request's arrival to `deadline`.
    pub(crate) timeout: Duration,
}

/// Reads bodies; clones share one budget of memory.
#[derive(Clone, Debug)]
pub(crate) struct BodyReader {
    memory: Arc<Semaphore>,
}

/// A body's share of the budget: keep it for as long as the body, or the image in it, is in memory.
#[derive(Debug, Default)]
#[must_use = "the memory counts as free once this drops"]
pub(crate) struct Memory(Option<OwnedSemaphorePermit>);

impl BodyReader {
    /// For bodies of at most `longest` bytes; there is always room for one of them.
    pub(crate) fn new(longest: usize) -> Self {
        Self::with_budget(MAX_TOTAL_BYTES.max(longest))
    }

    fn with_budget(bytes: usize) -> Self {
        Self { memory: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads `body` to its end. A declared length over the limit is refused before anything is read.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Body,
        bounds: Bounds,
    ) -> Result<(Bytes, Memory), Error> {
        let declared =
            headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        let too_large = Error::TooLarge { what: "The request body", limit: bounds.limit };
        if declared.is_some_and(|length| length > bounds.limit as u64) {
            discard(body);
            return Err(too_large);
        }
        let busy = || Error::Busy { retry_after: RETRY_AFTER };
        let Ok(mut frames) = Frames::new(declared.and_then(|length| usize::try_from(length).ok())) else {
            discard(body);
            return Err(busy());
        };
        let mut memory = Memory::default();
        loop {
            let frame = timeout_at(bounds.deadline, body.frame())
                .await
                .map_err(|_| Error::BodyTooSlow { limit: bounds.timeout })?;
            let Some(frame) = frame else { return Ok((frames.join().map_err(|_| busy())?, memory)) };
            let Ok(data) = frame.map_err(|_| Error::BodyCut)?.into_data() else { continue };
            if frames.length + data.len() > bounds.limit {
                discard(body);
                return Err(too_large);
            }
            if let Err(busy) = self.reserve(data.len(), &mut memory) {
                discard(body);
                return Err(busy);
            }
            frames.push(data);
        }
    }

    /// Memory is taken as it arrives: a client that announces much and sends little keeps little from others.
    fn reserve(&self, bytes: usize, memory: &mut Memory) -> Result<(), Error> {
        let busy = || Error::Busy { retry_after: RETRY_AFTER };
        let bytes = u32::try_from(bytes).map_err(|_| busy())?;
        let more = Arc::clone(&self.memory).try_acquire_many_owned(bytes).map_err(|_| busy())?;
        match &mut memory.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// The media type without its parameters, in lower case: `multipart/form-data`. `None` without a (readable) header.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or(value);
    Some(essence.trim().to_ascii_lowercase())
}

/// Whether a media type is JSON: `application/json`, or a type built on it (`application/problem+json`).
pub(crate) fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Text of a JSON body: a view of it, unless the text has escapes.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// What it is.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a body that must be a JSON object. Takes time: run it through [`Offload`](crate::offload::Offload).
pub(crate) fn json_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    // serde would take an array for the fields in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Error::InvalidRequest("The request body must be a JSON object.".to_owned()));
    }
    // As axum reads it, and with its words, but that texts need not be copied.
    let mut reader = serde_json::Deserializer::from_slice(body);
    let object = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let problem = match error.inner().is_data() {
            true => "Failed to deserialize the JSON body into the target type",
            false => "Failed to parse the request body as JSON",
        };
        Error::Json(format!("{problem}: {error}"))
    })?;
    reader
        .end()
        .map_err(|error| Error::Json(format!("Failed to parse the request body as JSON: {error}")))?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use http::HeaderValue;

    fn bounds(limit: usize) -> Bounds {
        let timeout = Duration::from_secs(30);
        Bounds { limit, deadline: Instant::now() + timeout, timeout }
    }

    async fn read(headers: &HeaderMap, body: Body, bounds: Bounds) -> Result<Bytes, Error> {
        BodyReader::new(0).read(headers, body, bounds).await.map(|(bytes, _)| bytes)
    }

    /// A body of two frames that declares nothing, as chunked transfer does.
    fn chunked(first: &'static [u8], second: &'static [u8]) -> Body {
        let frames = [first, second].map(|data| Ok::<_, std::io::Error>(Bytes::from_static(data)));
        Body::from_stream(tokio_stream::iter(frames))
    }

    #[tokio::test]
    async fn the_limit_is_inclusive_with_and_without_a_declared_length() {
        let none = HeaderMap::new();
        assert_eq!(read(&none, chunked(b"123", b"45"), bounds(5)).await.unwrap(), "12345");
        assert!(matches!(
            read(&none, chunked(b"123", b"456"), bounds(5)).await,
            Err(Error::TooLarge { limit: 5, .. })
        ));
        let mut declared = HeaderMap::new();
        declared.insert(CONTENT_LENGTH, HeaderValue::from_static("6"));
        assert!(matches!(read(&declared, chunked(b"", b""), bounds(5)).await, Err(Error::TooLarge { .. })));
    }

    #[tokio::test]
    async fn bodies_share_the_budget_and_give_it_back() {
        let reader = BodyReader::with_budget(8);
        let none = HeaderMap::new();
        let (bytes, memory) = reader.read(&none, chunked(b"123", b"45"), bounds(8)).await.unwrap();
        assert_eq!(bytes, "12345");
        let refused = reader.read(&none, chunked(b"123", b"4"), bounds(8)).await.unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        assert_eq!(reader.memory.available_permits(), 3, "what was refused takes nothing");
        drop(memory);
        assert!(reader.read(&none, chunked(b"123", b"4"), bounds(8)).await.is_ok());
    }

    #[tokio::test]
    async fn a_long_body_is_copied_once_and_without_a_length_not_before_it_is_all_there() {
        let frame = Bytes::from(vec![7; 300 << 10]);
        let body = |count: usize| {
            let frames: Vec<_> = (0..count).map(|_| Ok::<_, std::io::Error>(frame.clone())).collect();
            Body::from_stream(tokio_stream::iter(frames))
        };
        let length = 10 * frame.len();
        let mut declared = HeaderMap::new();
        declared.insert(CONTENT_LENGTH, HeaderValue::from(length));
        for headers in [declared, HeaderMap::new()] {
            let bytes = read(&headers, body(10), bounds(1 << 30)).await.unwrap();
            assert!(bytes.len() == length && bytes.iter().all(|&byte| byte == 7));
            let capacity = bytes.try_into_mut().unwrap().capacity();
            assert_eq!(capacity, length, "it was made for this body: nothing was moved while it grew");
        }
        let one = read(&HeaderMap::new(), body(1), bounds(1 << 30)).await.unwrap();
        assert_eq!(one.as_ptr(), frame.as_ptr(), "one frame is the body");
    }

    #[tokio::test]
    async fn a_length_that_no_memory_has_is_refused() {
        let mut declared = HeaderMap::new();
        declared.insert(CONTENT_LENGTH, HeaderValue::from(usize::MAX));
        let refused = read(&declared, chunked(b"12", b"3"), bounds(usize::MAX)).await.unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let result = read(&HeaderMap::new(), endless, bounds(5)).await;
        assert!(matches!(result, Err(Error::BodyTooSlow { .. })));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let frames = [Ok(Bytes::from_static(b"12")), Err(std::io::Error::other("reset"))];
        let broken = Body::from_stream(tokio_stream::iter(frames));
        assert!(matches!(read(&HeaderMap::new(), broken, bounds(5)).await, Err(Error::BodyCut)));
    }

    #[derive(Debug, Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        image: Option<Text<'a>>,
    }

    #[test]
    fn text_without_escapes_is_a_view_of_the_body() {
        let body = br#"{"image": "QUJD", "other": 1}"#;
        let Object { image } = json_object(body).unwrap();
        let text = image.unwrap();
        assert_eq!(text.as_str(), "QUJD");
        assert!(body.as_ptr_range().contains(&text.as_str().as_ptr()), "a view of the body");
        let Object { image } = json_object(br#"{"image": "QU\r\nJD\/"}"#).unwrap();
        assert_eq!(image.unwrap().as_str(), "QU\r\nJD/");
        let Object { image } = json_object(br#"{"image": null}"#).unwrap();
        assert!(image.is_none());
    }

    #[test]
    fn json_is_refused_in_the_words_of_axum() {
        fn theirs(body: &[u8]) -> String {
            #[derive(Debug, Deserialize)]
            #[allow(dead_code)]
            struct Object {
                image: Option<String>,
            }
            axum::Json::<Object>::from_bytes(body).unwrap_err().body_text()
        }
        let bodies: [&[u8]; 10] = [
            b"",
            b"{",
            b"no JSON",
            b"7",
            b"null",
            br#"{"image": 7}"#,
            br#"{"image": ["QUJD"]}"#,
            br#"{"image": "QUJD", "image": "QUJD"}"#,
            br#"{"image": "QUJD"} x"#,
            b"{\"image\": \"\xff\"}",
        ];
        for body in bodies {
            let ours = json_object::<Object<'_>>(body).unwrap_err();
            assert_eq!(ours.to_string(), format!("{}.", theirs(body)));
            assert_eq!(ours.code(), service_kit::ErrorCode::InvalidInput);
        }
        assert!(json_object::<Object<'_>>(b"[]").unwrap_err().to_string().contains("must be a JSON object"));
    }

    #[test]
    fn media_types_are_compared_without_parameters_and_case() {
        let mut headers = HeaderMap::new();
        assert_eq!(media_type(&headers), None);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("Application/JSON; charset=utf-8"));
        assert!(is_json(&media_type(&headers).unwrap()));
        assert!(is_json("application/ld+json") && !is_json("text/json") && !is_json("text/plain"));
    }
}
