//! The error table: one small enum and its total maps to HTTP and gRPC.
//!
//! A domain error is a `thiserror` enum of its crate with `fn code(&self) -> ErrorCode`. The maps have no `_` arm,
//! so a new code cannot be forgotten in one of them.

use http::StatusCode;

/// What kind of failure an answer reports, and so whose fault it is and what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is wrong; the same request gets the same answer.
    InvalidInput,
    /// What the request names does not exist.
    NotFound,
    /// What the request would create exists, and is something else.
    AlreadyExists,
    /// The request, or what it would need, is over a limit.
    TooLarge,
    /// The service has more work than it can do in time: try again later.
    Overloaded,
    /// The caller's deadline, or the service's own limit, passed first.
    DeadlineExceeded,
    /// Loading, draining, or a service behind this one is down: try again, possibly elsewhere.
    Unavailable,
    /// A fault of ours. Details are in the log only.
    Internal,
}

impl ErrorCode {
    /// Every code, for tests and documentation.
    pub const ALL: [Self; 8] = [
        Self::InvalidInput,
        Self::NotFound,
        Self::AlreadyExists,
        Self::TooLarge,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The name used in JSON bodies, log fields and metric labels: `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of an answer with this code.
    pub const fn http_status(self) -> StatusCode {
        match self {
            Self::InvalidInput => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it is the service that failed, and not the request: such answers are logged as warnings.
    pub const fn is_server_fault(self) -> bool {
        match self {
            Self::InvalidInput | Self::NotFound | Self::AlreadyExists | Self::TooLarge | Self::Overloaded => {
                false
            }
            Self::DeadlineExceeded | Self::Unavailable | Self::Internal => true,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_statuses_are_distinct() {
        let names: HashSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        let statuses: HashSet<_> = ErrorCode::ALL.iter().map(|c| c.http_status()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert_eq!(statuses.len(), ErrorCode::ALL.len());
    }
}
