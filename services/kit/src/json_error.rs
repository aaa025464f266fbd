//! The body of every failed REST answer: `{"error": "<sentence>", "code": "<snake_case>", "request_id": "<id or null>"}`, and
//! `"verdict"` where it is one on an image.

use crate::{ErrorCode, readable};
use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::time::Duration;

/// A failed REST answer. Build it from a domain error where the handler ends.
#[derive(Clone, Debug)]
pub struct JsonError {
    code: ErrorCode,
    name: &'static str,
    status: StatusCode,
    message: String,
    request_id: Option<String>,
    verdict: Option<String>,
    retry_after: Option<Duration>,
}

/// The JSON form of [`JsonError`], for clients and tests that read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// A sentence for a person: what is wrong and what to do.
    pub error: String,
    /// [`ErrorCode::as_str`], or a more exact name of the same kind of failure.
    pub code: String,
    /// The id of the request, where it was known when it failed.
    pub request_id: Option<String>,
    /// What became of the image, if that is why: the word by which `convoy_sandbox_images_total` counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

impl JsonError {
    /// An answer with `code`'s own status. Of a very long `message`, with words of the caller's, the beginning is sent.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = readable(&message.into()).into_owned();
        Self {
            code,
            name: code.as_str(),
            status: code.http_status(),
            message,
            request_id: None,
            verdict: None,
            retry_after: None,
        }
    }

    /// Names the request that failed.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Says when to try again (`Retry-After`, whole seconds, rounded up).
    #[must_use]
    pub fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// Answers with a more exact status of the same class than the table's (405, 415, 422 …).
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Gives the failure a more exact name than the table's, for clients that act on it.
    #[must_use]
    pub fn with_name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Says what became of an image, if that is why.
    #[must_use]
    pub fn with_verdict(mut self, verdict: Option<&str>) -> Self {
        self.verdict = verdict.map(str::to_owned);
        self
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON of the answer.
    pub fn body(self) -> ErrorBody {
        ErrorBody {
            error: self.message,
            code: self.name.to_owned(),
            request_id: self.request_id,
            verdict: self.verdict,
        }
    }

    /// The kind of failure.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

impl IntoResponse for JsonError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self.body())).into_response();
        if let Some(delay) = retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// A body that could not be read at all: too long, or cut off.
impl From<BytesRejection> for JsonError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::new(ErrorCode::TooLarge, "The request body is larger than this service takes.")
        } else {
            Self::new(ErrorCode::InvalidInput, "The request body could not be read to its end.")
        }
    }
}

/// A body that is not the JSON that was asked for; the sentence says where.
impl From<JsonRejection> for JsonError {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(inner) => inner.into(),
            JsonRejection::MissingJsonContentType(_) => {
                Self::new(ErrorCode::InvalidInput, "Send the request with `Content-Type: application/json`.")
                    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            other => Self::new(ErrorCode::InvalidInput, format!("{}.", other.body_text())),
        }
    }
}

/// A path whose variable parts are no text once their percent-encoding is undone.
impl From<PathRejection> for JsonError {
    fn from(rejection: PathRejection) -> Self {
        match rejection {
            PathRejection::FailedToDeserializePathParams(_) => {
                Self::new(ErrorCode::InvalidInput, "The path is not percent-encoded UTF-8.")
            }
            // The route has no such part: a fault of ours.
            _ => Self::new(ErrorCode::Internal, "The path could not be taken apart."),
        }
    }
}

/// The answer for a path that no route has.
pub async fn no_such_path(uri: http::Uri) -> JsonError {
    JsonError::new(ErrorCode::NotFound, format!("There is nothing at {}.", uri.path()))
}

/// The answer for a path that exists, asked with a method that it does not have.
pub async fn no_such_method(method: http::Method, uri: http::Uri) -> JsonError {
    JsonError::new(ErrorCode::InvalidInput, format!("{} does not take {method}.", uri.path()))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn body(response: Response) -> ErrorBody {
        let bytes = response.into_body().collect().await.expect("a body in memory").to_bytes();
        serde_json::from_slice(&bytes).expect("the error shape")
    }

    #[tokio::test]
    async fn the_shape_is_the_documented_one() {
        let response =
            JsonError::new(ErrorCode::NotFound, "No such prediction.").with_request_id("r1").into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let body = body(response).await;
        assert_eq!(body.error, "No such prediction.");
        assert_eq!(body.code, "not_found");
        assert_eq!(body.request_id.as_deref(), Some("r1"));
    }

    #[test]
    fn a_verdict_is_in_the_answer_only_where_there_is_one() {
        let error = || JsonError::new(ErrorCode::InvalidInput, "Bad.");
        let text = |error: JsonError| serde_json::to_string(&error.body()).expect("plain data");
        assert_eq!(text(error()), r#"{"error":"Bad.","code":"invalid_input","request_id":null}"#);
        assert!(text(error().with_verdict(Some("truncated"))).ends_with(r#","verdict":"truncated"}"#));
    }

    #[tokio::test]
    async fn retry_after_is_rounded_up_to_whole_seconds() {
        for (delay, header) in [(1, "1"), (1_000, "1"), (1_001, "2")] {
            let response = JsonError::new(ErrorCode::Overloaded, "Busy.")
                .with_retry_after(Some(Duration::from_millis(delay)))
                .into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[header::RETRY_AFTER], header);
        }
    }

    #[tokio::test]
    async fn a_path_that_is_not_percent_encoded_text_is_the_senders_mistake() {
        use axum::extract::Path;
        use tower::ServiceExt as _;
        async fn handler(path: Result<Path<String>, PathRejection>) -> Result<String, JsonError> {
            Ok(path?.0)
        }
        let router = axum::Router::new().route("/{id}", axum::routing::get(handler));
        let request = http::Request::get("/%FF").body(axum::body::Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(body(response).await.code, "invalid_input");
    }
}
