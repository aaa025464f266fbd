//! Where a failed request ends: one log line, one answer.

use crate::error::{ServingError, Severity};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use service_kit::json_error::ErrorBody;
use service_kit::{ErrorCode, JsonError, readable};

/// Logs `error` once and answers it. `model` is what the caller asked for, `request_id` may be empty.
///
/// Levels are those of the gRPC face: only faults of ours are more than debugging.
pub(crate) fn answer(error: &ServingError, model: &str, request_id: &str) -> JsonError {
    let code = error.code();
    let (model, detail) = (readable(model), error.to_string());
    let detail = readable(&detail);
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                request_id,
                model = &*model,
                code = code.as_str(),
                error = &*detail,
                image_sha256 = error.trapped_image(),
                "A request failed."
            )
        };
    }
    match error.severity() {
        Severity::Error => log!(error),
        Severity::Warning => log!(warn),
        Severity::Debug => log!(debug),
    }
    let answer = match error {
        ServingError::BodyTooSlow(sentence) => {
            JsonError::new(ErrorCode::InvalidInput, sentence).with_status(StatusCode::REQUEST_TIMEOUT)
        }
        error => JsonError::new(code, error.public_message())
            .with_retry_after(error.retry_after())
            .with_verdict(error.verdict()),
    };
    if request_id.is_empty() { answer } else { answer.with_request_id(request_id) }
}

/// The answer to a fault of ours: `what`, without a full stop; `error` is for the log.
pub(super) fn internal(what: &str, error: &dyn std::fmt::Display) -> JsonError {
    tracing::error!(%error, "{what}.");
    JsonError::new(ErrorCode::Internal, format!("{what}; the server's log says why."))
}

/// What this server does not do: 501, as Triton answers, with the reason.
pub(super) fn not_supported(what: &str) -> Response {
    let error = format!("{what} is not supported by this server.");
    let body = ErrorBody { error, code: "not_supported".to_owned(), request_id: None, verdict: None };
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}
