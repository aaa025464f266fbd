//! The gRPC half of the error table.

use crate::ErrorCode;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

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

/// A gRPC status for `code`. `retry_after` travels as `google.rpc.RetryInfo`, which client libraries understand.
pub fn status(code: ErrorCode, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    match retry_after {
        Some(delay) => {
            Status::with_error_details(code.grpc_code(), message, ErrorDetails::with_retry_info(Some(delay)))
        }
        None => Status::new(code.grpc_code(), message.into()),
    }
}

/// What a peer's status means to the service that called it.
///
/// Codes that Convoy itself never sends (a proxy between the services may) count as [`ErrorCode::Unavailable`] where
/// another try can help, and as [`ErrorCode::Internal`] where it cannot.
pub fn code_of_status(code: Code) -> ErrorCode {
    match code {
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
            let back = code_of_status(code.grpc_code());
            // gRPC has no word for "too large": it is an invalid argument there.
            let expected = if code == ErrorCode::TooLarge { ErrorCode::InvalidInput } else { code };
            assert_eq!(back, expected);
        }
    }

    #[test]
    fn retry_info_is_attached() {
        let status = status(ErrorCode::Overloaded, "Busy.", Some(Duration::from_millis(250)));
        let info = status.get_details_retry_info();
        assert_eq!(info.and_then(|i| i.retry_delay), Some(Duration::from_millis(250)));
    }
}
