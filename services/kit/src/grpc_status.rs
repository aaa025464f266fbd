//! The gRPC half of the error table.

use crate::ErrorCode;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt as _};

impl ErrorCode {
    /// The gRPC status code of an answer with this code.
    pub const fn grpc_code(self) -> Code {
        match self {
            Self::InvalidInput | Self::TooLarge => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Overloaded => Code::ResourceExhausted,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// The domain of the `google.rpc.ErrorInfo` that a status may have.
const DOMAIN: &str = "convoy";
/// In its metadata: what became of an image.
const VERDICT: &str = "verdict";

/// A gRPC status for `code`. `retry_after` travels as `google.rpc.RetryInfo`, which client libraries understand.
pub fn status(code: ErrorCode, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    status_of_image(code, message, retry_after, None)
}

/// The same, where `verdict` says what became of an image. That travels as `google.rpc.ErrorInfo`, and so does a code for which
/// gRPC has no word of its own: `reason` is [`ErrorCode::as_str`] in capitals, `domain` is `convoy`, and `metadata` has the
/// `verdict`.
pub fn status_of_image(
    code: ErrorCode,
    message: impl Into<String>,
    retry_after: Option<Duration>,
    verdict: Option<&str>,
) -> Status {
    let mut details = ErrorDetails::new();
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    if verdict.is_some() || code == ErrorCode::TooLarge {
        let metadata: HashMap<_, _> =
            verdict.map(|verdict| (VERDICT.to_owned(), verdict.to_owned())).into_iter().collect();
        details.set_error_info(code.as_str().to_uppercase(), DOMAIN, metadata);
    }
    if details.retry_info().is_some() || details.error_info().is_some() {
        Status::with_error_details(code.grpc_code(), message, details)
    } else {
        Status::new(code.grpc_code(), message.into())
    }
}

/// What a status of Convoy's says became of an image.
pub fn verdict_of_status(status: &Status) -> Option<String> {
    own_info(status).and_then(|mut info| info.metadata.remove(VERDICT))
}

fn own_info(status: &Status) -> Option<ErrorInfo> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN)
}

/// What a peer's status means to the service that called it.
///
/// Codes that Convoy itself never sends (a proxy between the services may) count as [`ErrorCode::Unavailable`] where
/// another try can help, and as [`ErrorCode::Internal`] where it cannot.
pub fn code_of_status(status: &Status) -> ErrorCode {
    match status.code() {
        Code::InvalidArgument
            if own_info(status)
                .is_some_and(|info| info.reason.eq_ignore_ascii_case(ErrorCode::TooLarge.as_str())) =>
        {
            ErrorCode::TooLarge
        }
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidInput,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        // A tonic client says CANCELLED when its own timer ends a call.
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::DeadlineExceeded,
        Code::Unavailable | Code::Aborted | Code::Unknown => ErrorCode::Unavailable,
        Code::Ok
        | Code::Internal
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::DataLoss => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            assert_eq!(code_of_status(&status(code, "Text.", None)), code);
        }
        // gRPC has no word for "too large": it is an invalid argument there.
        assert_eq!(code_of_status(&Status::invalid_argument("Text.")), ErrorCode::InvalidInput);
    }

    #[test]
    fn a_verdict_survives_the_wire() {
        let status = status_of_image(
            ErrorCode::TooLarge,
            "Vast.",
            Some(Duration::from_millis(250)),
            Some("too_many_pixels"),
        );
        assert_eq!(code_of_status(&status), ErrorCode::TooLarge);
        assert_eq!(verdict_of_status(&status).as_deref(), Some("too_many_pixels"));
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(verdict_of_status(&Status::invalid_argument("Text.")), None);
    }

    #[test]
    fn retry_info_is_attached() {
        let status = status(ErrorCode::Overloaded, "Busy.", Some(Duration::from_millis(250)));
        let info = status.get_details_retry_info();
        assert_eq!(info.and_then(|i| i.retry_delay), Some(Duration::from_millis(250)));
    }
}
