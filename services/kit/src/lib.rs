//! What every Convoy service does alike, so that their answers, logs and ends agree.
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`] | [`ErrorCode`]: the one small error table, mapped to HTTP and (feature `grpc`) to gRPC |
//! | [`json_error`] | [`JsonError`]: the body of every failed REST answer |
//! | [`identifier`] | the rule for request and user ids |
//! | [`base64_text`] | base64 as clients really send it: white space skipped, padding optional |
//! | [`byte_size`] | [`ByteSize`]: a setting that is a number of bytes |
//! | [`hexadecimal`](mod@hexadecimal) | bytes in hexadecimal |
//! | [`readable`](mod@readable) | texts with callers' words, short and on one line |
//! | [`readiness`] | [`Readiness`]: a latch that each part holds until it can do its work |
//! | [`shutdown`] | [`Shutdown`]: draining, then stopping |
//! | [`listening`] | [`Listening`]: a listener that closes without losing a connection |
//! | [`connection`] | [`Connection`]: a client's connection, which can be reset |
//! | [`http_server`] | serving an axum router until [`Shutdown`] says stop |
//! | [`api_docs`] | `/openapi.json` and the page at `/docs` |
//! | [`telemetry`] | logs as text or JSON |
//! | [`timestamp`] | RFC 3339 instants in UTC |
//!
//! The gRPC half of the error table is behind the feature `grpc`, so that results-service has no tonic; the schemas of
//! the shared answers are behind `openapi`.

pub mod api_docs;
pub mod base64_text;
pub mod byte_size;
pub mod connection;
pub mod error;
pub mod hexadecimal;
pub mod http_server;
pub mod identifier;
pub mod json_error;
pub mod listening;
pub mod readable;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
pub mod timestamp;

#[cfg(feature = "grpc")]
mod grpc_status;
#[cfg(feature = "openapi")]
pub mod openapi;

pub use byte_size::ByteSize;
pub use connection::{Connection, ConnectionHandle};
pub use error::ErrorCode;
#[cfg(feature = "grpc")]
pub use grpc_status::{code_of_status, status, status_of_image, verdict_of_status};
pub use hexadecimal::hexadecimal;
pub use json_error::JsonError;
pub use listening::{Listening, cannot_listen};
pub use readable::readable;
pub use readiness::{Hold, Readiness};
pub use shutdown::Shutdown;
