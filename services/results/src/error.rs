//! What can go wrong with a request, and with the service as a whole.

use crate::store::{OpenError, StoreError};
use service_kit::identifier::{self, IdentifierError};
use service_kit::{ErrorCode, JsonError};
use std::net::SocketAddr;
use std::time::Duration;

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken, or the address is not this machine's.
    #[error("{}", service_kit::cannot_listen(*.address, .flag, .source))]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metrics could not be registered.
    #[error("The metrics cannot be set up: {0}.")]
    Metrics(#[from] prometheus::Error),
    /// Accepting connections failed for good.
    #[error("Cannot accept connections: {0}.")]
    Serve(#[from] std::io::Error),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A field that every prediction has is absent, or null.
    #[error("Missing field: {0}")]
    MissingField(&'static str),
    /// An id breaks the rule of [`identifier`].
    #[error("{field} {error}.")]
    BadIdentifier {
        /// `request_id` or `user_id`.
        field: &'static str,
        /// The part of the rule that it breaks.
        error: IdentifierError,
    },
    /// A field holds something else than it should.
    #[error("{field} must be {expected}.")]
    WrongField {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The query of the URL cannot be taken apart.
    #[error("The query of the URL is not valid: {0}.")]
    BadQuery(String),
    /// The query has a parameter that is not known.
    #[error("There is no query parameter `{0}` here.")]
    UnknownParameter(String),
    /// The query has a parameter more than once.
    #[error("The query has {0} twice: send it once.")]
    RepeatedParameter(String),
    /// The body has no bytes.
    #[error("The request body is empty: send a JSON object.")]
    EmptyBody,
    /// The body, or an element of its array, is JSON of another kind.
    #[error("The request body must be a JSON object, or an array of them.")]
    NotAnObject,
    /// The body is not JSON.
    #[error("The request body is not valid JSON: {0}.")]
    NotJson(String),
    /// The connection ended before the body did.
    #[error("The request body could not be read to its end.")]
    BodyCutOff,
    /// The body is declared as something else than JSON.
    #[error("Send the request with `Content-Type: application/json`.")]
    NotDeclaredJson,
    /// The body is longer than allowed.
    #[error("The request body is larger than {limit} bytes, the most that this service takes.")]
    BodyTooLarge {
        /// The longest body, in bytes.
        limit: usize,
    },
    /// The bodies of all open requests together take too much memory.
    #[error("The service holds as many requests as it can: send the request again later.")]
    Crowded,
    /// No prediction has the id.
    #[error("There is no prediction with this request_id.")]
    NotFound,
    /// The id belongs to another prediction, of which nothing is shown.
    #[error(
        "A prediction with this request_id exists already, and this request does not repeat it: send another request_id."
    )]
    Exists,
    /// The prediction was received before its user's last erasure.
    #[error("The user was erased after this request was received: it is not stored.")]
    Erased,
    /// The array is too long.
    #[error("The array has more than {limit} predictions: send it in parts.")]
    TooManyElements {
        /// The longest array.
        limit: usize,
    },
    /// The database is still being opened.
    #[error("The service is starting: send the request again later.")]
    Starting,
    /// No folder for backups is set.
    #[error("Backups are not made on request here: start the service with --backup-dir (BACKUP_DIR).")]
    NoBackupFolder,
    /// One backup at a time.
    #[error("A backup is being made already: send the request again later.")]
    BackupRunning,
    /// Backups are never overwritten.
    #[error("A file of this name exists already: choose another name for the backup.")]
    BackupExists,
    /// The disk or the database fails; the text is for the operator.
    #[error("{0}")]
    BackupFailed(String),
    /// A fault of ours, which has been logged.
    #[error("The service could not do this; its log says why.")]
    Internal,
    /// The store failed; it has logged why.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RequestError {
    /// The kind of failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::MissingField(_)
            | Self::BadIdentifier { .. }
            | Self::WrongField { .. }
            | Self::BadQuery(_)
            | Self::UnknownParameter(_)
            | Self::RepeatedParameter(_)
            | Self::EmptyBody
            | Self::NotAnObject
            | Self::NotJson(_)
            | Self::BodyCutOff
            | Self::NotDeclaredJson => ErrorCode::InvalidInput,
            Self::BodyTooLarge { .. } | Self::TooManyElements { .. } => ErrorCode::TooLarge,
            Self::Crowded | Self::BackupRunning => ErrorCode::Overloaded,
            Self::NotFound => ErrorCode::NotFound,
            Self::Exists | Self::Erased | Self::BackupExists => ErrorCode::AlreadyExists,
            Self::Starting | Self::NoBackupFolder | Self::BackupFailed(_) => ErrorCode::Unavailable,
            Self::Internal => ErrorCode::Internal,
            Self::Store(error) => error.code(),
        }
    }

    /// The answer, which names the request where its id is known.
    pub(crate) fn named(self, request_id: Option<String>) -> JsonError {
        let error = JsonError::from(self);
        match request_id {
            Some(id) => error.with_request_id(id),
            None => error,
        }
    }

    /// How long to wait before the next try, where trying again helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.code() {
            ErrorCode::Overloaded | ErrorCode::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<RequestError> for JsonError {
    fn from(error: RequestError) -> Self {
        let json = Self::new(error.code(), error.to_string()).with_retry_after(error.retry_after());
        match error {
            RequestError::NotDeclaredJson => json.with_status(http::StatusCode::UNSUPPORTED_MEDIA_TYPE),
            RequestError::Erased => json.with_name("erased"),
            _ => json,
        }
    }
}

/// Checks an id from a path or a body.
///
/// # Errors
/// [`RequestError::BadIdentifier`] with the field's name.
pub(crate) fn check_identifier(field: &'static str, id: &str) -> Result<(), RequestError> {
    identifier::validate(id).map_err(|error| RequestError::BadIdentifier { field, error })
}
