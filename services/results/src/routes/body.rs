//! Reads a JSON body into memory, within limits that hold for one body and for all of them together.

use crate::error::RequestError;
use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest body, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// Most memory that the bodies of all open requests take together, in bytes.
const MAX_TOTAL_BYTES: usize = 256 << 20;
/// Most bytes that are read and thrown away so that a client which is still sending hears why it was refused: closing
/// the connection under it would lose the answer.
const MAX_DISCARDED_BYTES: usize = 256 << 20;

/// Reads bodies; clones share one budget of memory.
#[derive(Clone)]
pub(super) struct BodyReader {
    memory: Arc<Semaphore>,
}

/// A body, with its share of the budget.
#[derive(Debug)]
pub(super) struct JsonBody {
    pub(super) bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl BodyReader {
    pub(super) fn new() -> Self {
        Self::with_budget(MAX_TOTAL_BYTES)
    }

    fn with_budget(bytes: usize) -> Self {
        Self { memory: Arc::new(Semaphore::new(bytes)) }
    }

    /// The body of `request`, which says that it is JSON and is not empty. It may be no JSON all the same.
    pub(super) async fn read_json(&self, request: Request) -> Result<JsonBody, RequestError> {
        let (parts, mut body) = request.into_parts();
        match self.read(&parts.headers, &mut body).await {
            Ok(read) if read.bytes.is_empty() => Err(RequestError::EmptyBody),
            Ok(read) => Ok(read),
            Err(error) => {
                // A client that waits for `100 Continue` has sent nothing yet and reads the answer at once.
                if !parts.headers.contains_key(header::EXPECT) {
                    discard(&mut body).await;
                }
                Err(error)
            }
        }
    }

    async fn read(&self, headers: &HeaderMap, body: &mut Body) -> Result<JsonBody, RequestError> {
        const TOO_LARGE: RequestError = RequestError::BodyTooLarge { limit: MAX_BODY_BYTES };
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(TOO_LARGE);
        }
        let is_json = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().is_ok_and(is_json));
        // Without a type and without a body, the missing body is the better news.
        if is_json == Some(false) || (is_json.is_none() && declared.is_some_and(|length| length > 0)) {
            return Err(RequestError::NotDeclaredJson);
        }
        let mut read =
            JsonBody { bytes: Vec::with_capacity(declared.unwrap_or(0).min(1 << 20)), _memory: None };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| RequestError::BodyCutOff)?.into_data() else { continue };
            if is_json.is_none() {
                return Err(RequestError::NotDeclaredJson);
            }
            if read.bytes.len() + data.len() > MAX_BODY_BYTES {
                return Err(TOO_LARGE);
            }
            read.take(self.reserve(data.len())?);
            read.bytes.extend_from_slice(&data);
        }
        Ok(read)
    }

    /// Memory is taken as it arrives: a client that announces much and sends little keeps little from others.
    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RequestError> {
        let bytes = u32::try_from(bytes).map_err(|_| RequestError::Crowded)?;
        Arc::clone(&self.memory).try_acquire_many_owned(bytes).map_err(|_| RequestError::Crowded)
    }
}

impl JsonBody {
    fn take(&mut self, more: OwnedSemaphorePermit) {
        match &mut self._memory {
            Some(memory) => memory.merge(more),
            none => *none = Some(more),
        }
    }
}

/// `application/json`, or a type built on it such as `application/problem+json`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

async fn discard(body: &mut Body) {
    let mut discarded = 0;
    while discarded < MAX_DISCARDED_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, bytes::Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(body: impl Into<Body>) -> Request {
        Request::post("/predictions").header("content-type", "application/json").body(body.into()).unwrap()
    }

    #[tokio::test]
    async fn bodies_share_the_budget_and_give_it_back() {
        let reader = BodyReader::with_budget(10);
        let first = reader.read_json(request("12345678")).await.unwrap();
        assert_eq!(first.bytes, b"12345678");
        assert!(matches!(reader.read_json(request("123")).await, Err(RequestError::Crowded)));
        drop(first);
        assert!(reader.read_json(request("123")).await.is_ok());
        assert_eq!(reader.memory.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_body_without_a_declared_length_is_measured_as_it_comes() {
        let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 20])));
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let refused = BodyReader::new().read_json(request(body)).await;
        assert!(matches!(refused, Err(RequestError::BodyTooLarge { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let chunks = [Ok(bytes::Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))];
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        assert!(matches!(BodyReader::new().read_json(request(body)).await, Err(RequestError::BodyCutOff)));
    }

    #[test]
    fn the_type_is_json_whatever_its_case_and_parameters() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["text/json", "application/jsonx", "text/plain", "", "image/svg+xml"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
