//! What can go wrong, whose fault it is, and the answer that says so.

use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandbox::SandboxError;
use service_kit::base64_text::Base64Error;
use service_kit::identifier::IdentifierError;
use service_kit::{ErrorCode, JsonError, readable};
use std::time::Duration;

/// Why a request was not answered with what it asked for. Each text is a sentence for the client, but for
/// [`ErrorCode::Internal`], whose details are for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's: there is no image in the request.
    #[error("Image data required")]
    ImageRequired,
    /// The client's: `image` is not base64.
    #[error("image {0}.")]
    Base64(#[from] Base64Error),
    /// The client's: an id breaks the rule for ids.
    #[error("{field} {problem}.")]
    Identifier {
        /// The field or query parameter.
        field: &'static str,
        /// Which part of the rule.
        problem: IdentifierError,
    },
    /// The client's: the body is not the JSON that was asked for; the text says why, without a full stop.
    #[error("{0}.")]
    Json(String),
    /// The client's: the query is malformed or repeats a parameter.
    #[error("The query of the URL is not valid: {}.", .0.body_text())]
    Query(#[from] QueryRejection),
    /// The client's: something else about the request; the text is the sentence.
    #[error("{0}")]
    InvalidRequest(String),
    /// The client's: the body is of no type that this route takes.
    #[error("{}: send {expected}.", match .found { Some(found) => format!("The Content-Type `{found}` is not taken here"), None => "The request has no Content-Type".to_owned() })]
    UnsupportedMediaType {
        /// What the request says of itself.
        found: Option<String>,
        /// What the route takes, in words.
        expected: &'static str,
    },
    /// The client's: more bytes than are taken.
    #[error("{what} is larger than the limit of {limit} bytes: send a smaller image.")]
    TooLarge {
        /// The body or the image, at the beginning of a sentence.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// The client's: the body did not arrive in the time that a request may take.
    #[error("The request body did not arrive within {} ms: send it faster, or a smaller one.", limit.as_millis())]
    BodyTooSlow {
        /// The time a request may take.
        limit: Duration,
    },
    /// The client's: the body ended before its declared length, or its framing is broken.
    #[error("The request body could not be read to its end.")]
    BodyCut,
    /// What the sandbox says of the image.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Ours: too many large bodies at once. Nothing was done.
    #[error("Too many large requests at once: try again in {} ms.", retry_after.as_millis())]
    Busy {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// Ours: the service is on its way out.
    #[error("The request was not served because the service is stopping: try again later.")]
    Stopping,
    /// The client's: the model exists, but this route cannot use it.
    #[error("The model `{model}` cannot be used here: {problem}.")]
    ModelUnfit {
        /// The model's name.
        model: String,
        /// Why not, without a full stop at its end.
        problem: String,
    },
    /// Whoever's `code` says: model-serving answered with an error, or could not be reached.
    #[error("{}", model_serving_text(*.code, .message))]
    ModelServing {
        /// The peer's code in our table.
        code: ErrorCode,
        /// The peer's or its client's words.
        message: String,
        /// When the peer wants to be asked again.
        retry_after: Option<Duration>,
        /// What became of the image there, if that is why.
        verdict: Option<String>,
    },
    /// A peer's: its answer does not make sense.
    #[error("The answer of {peer} is not understood: {detail}.")]
    PeerAnswer {
        /// The peer's name.
        peer: &'static str,
        /// What does not make sense, without a full stop at its end.
        detail: String,
    },
    /// Nobody's: the time for the request passed.
    #[error("The time for the request passed while it waited for {waiting_for}: try again later.")]
    DeadlineExceeded {
        /// What it waited for.
        waiting_for: &'static str,
    },
    /// The client's: the id was used for another request. The other request is not shown.
    #[error(
        "The request_id exists already for another image, user or model: send each request with an id of its own."
    )]
    Conflict,
    /// The user's: they were erased while the request was on its way. Nothing of it is kept.
    #[error(
        "The user was erased after this request was received, so nothing of it was stored: send a new request if it is \
         meant to be."
    )]
    Erased,
    /// A peer's: results-service could not be asked whether this request was answered before. Nothing was done.
    #[error("results-service is not available ({detail}), so nothing was done: send the same request again.")]
    NotLookedUp {
        /// What went wrong, without a full stop at its end.
        detail: String,
    },
    /// A peer's: the prediction was made, and it is not known to be stored.
    #[error(
        "The prediction could not be stored: results-service is not available ({detail}). Send the same request \
         again with the request_id of this answer: it is stored once."
    )]
    NotStored {
        /// What went wrong, without a full stop at its end.
        detail: String,
    },
    /// Ours.
    #[error("{detail}.")]
    Internal {
        /// For the log.
        detail: String,
    },
}

fn model_serving_text(code: ErrorCode, message: &str) -> String {
    match code {
        ErrorCode::Unavailable => {
            format!("model-serving is not available ({}): try again later.", message.trim_end_matches('.'))
        }
        // Its sentences are written for the client.
        _ => message.to_owned(),
    }
}

impl Error {
    /// Which line of the error table this is.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ImageRequired
            | Self::Base64(_)
            | Self::Identifier { .. }
            | Self::Query(_)
            | Self::InvalidRequest(_)
            | Self::UnsupportedMediaType { .. }
            | Self::BodyCut
            | Self::BodyTooSlow { .. }
            | Self::ModelUnfit { .. }
            | Self::Json(_) => ErrorCode::InvalidInput,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Sandbox(error) => code_of_sandbox(error),
            Self::Busy { .. } => ErrorCode::Overloaded,
            Self::ModelServing { code, .. } => *code,
            Self::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
            Self::Conflict | Self::Erased => ErrorCode::AlreadyExists,
            Self::Stopping | Self::NotLookedUp { .. } | Self::NotStored { .. } => ErrorCode::Unavailable,
            Self::PeerAnswer { .. } | Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// When to try again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Sandbox(SandboxError::Busy { retry_after }) => {
                Some(*retry_after)
            }
            // RESOURCE_EXHAUSTED always means "later", whether or not the peer says when.
            Self::ModelServing { code: ErrorCode::Overloaded, retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            Self::ModelServing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What became of the image, if that is why.
    fn verdict(&self) -> Option<&str> {
        match self {
            Self::Sandbox(error) => Some(error.verdict().as_str()),
            Self::ModelServing { verdict, .. } => verdict.as_deref(),
            _ => None,
        }
    }

    /// A more exact status than the table's.
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::UnsupportedMediaType { .. } => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            // The sender was slow, and no service behind this one.
            Self::BodyTooSlow { .. } => Some(StatusCode::REQUEST_TIMEOUT),
            _ => None,
        }
    }

    /// Names the request that failed, and makes an answer of it.
    pub(crate) fn of(self, request_id: Option<&str>) -> Failure {
        Failure { error: self, request_id: request_id.map(str::to_owned) }
    }
}

/// Whose fault it is when an image was not preprocessed.
fn code_of_sandbox(error: &SandboxError) -> ErrorCode {
    match error {
        // An image that needs more than it may have is the sender's.
        SandboxError::Empty
        | SandboxError::NotAnImage
        | SandboxError::UnsupportedFormat { .. }
        | SandboxError::Truncated { .. }
        | SandboxError::Corrupt { .. }
        | SandboxError::InvalidOptions { .. }
        | SandboxError::OutOfMemory { .. }
        | SandboxError::OutOfTime { .. }
        | SandboxError::Trapped { .. } => ErrorCode::InvalidInput,
        SandboxError::TooManyPixels { .. } | SandboxError::TooLarge { .. } => ErrorCode::TooLarge,
        SandboxError::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        SandboxError::Busy { .. } => ErrorCode::Overloaded,
        SandboxError::Stopped => ErrorCode::Unavailable,
        SandboxError::Component { .. } => ErrorCode::Internal,
        // The enum is open to new variants; what is not known here is not the client's fault.
        _ => ErrorCode::Internal,
    }
}

/// A failed request, on its way to the client: logged once, when it becomes the answer.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    request_id: Option<String>,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), request_id: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { error, request_id } = self;
        let code = error.code();
        let text = error.to_string();
        let text = readable(&text);
        // A trap is answered as the sender's fault, but an operator wants to know that the decoder failed, and on what.
        let image_sha256 = match &error {
            Error::Sandbox(SandboxError::Trapped { image_sha256, .. }) => Some(image_sha256),
            _ => None,
        };
        if code.is_server_fault() || image_sha256.is_some() {
            tracing::warn!(request_id, %code, error = %text, image_sha256, "request failed");
        } else {
            tracing::info!(request_id, %code, error = %text, "request refused");
        }
        let message = match code {
            ErrorCode::Internal => {
                "feature-service could not serve this request; its log says why.".to_owned()
            }
            _ => text.into_owned(),
        };
        let mut answer =
            JsonError::new(code, message).with_retry_after(error.retry_after()).with_verdict(error.verdict());
        if let Some(status) = error.status() {
            answer = answer.with_status(status);
        }
        if matches!(error, Error::Erased) {
            answer = answer.with_name("erased");
        }
        if let Some(id) = request_id {
            answer = answer.with_request_id(id);
        }
        answer.into_response()
    }
}
