//! What the store keeps: a prediction on its way in, and as it was stored.

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;
use service_kit::timestamp::to_rfc3339;
use std::error::Error;
use utoipa::ToSchema;

/// A prediction to be stored; its fields were checked by whoever built it.
#[derive(Clone, Debug)]
pub struct NewPrediction {
    /// Unique among all predictions.
    pub request_id: String,
    /// The person or client that it belongs to.
    pub user_id: String,
    /// The model that made it, where known.
    pub model_name: Option<String>,
    /// The version of the model.
    pub model_version: String,
    /// How long the inference took, in milliseconds; finite and not negative.
    pub inference_time_ms: f64,
    /// Any JSON; kept byte for byte.
    pub predictions: Box<RawValue>,
    /// The client's SHA-256 over the request's content, in lower-case hex.
    pub content_sha256: Option<String>,
    /// When the service that the person talked to took the request in; none: now. If that was before the user's last
    /// erasure, the prediction is not stored.
    pub received_at: Option<Timestamp>,
}

/// A stored prediction; its JSON is what `GET /predictions/{request_id}` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Prediction {
    /// Unique among all predictions.
    pub request_id: String,
    /// The person or client that it belongs to.
    pub user_id: String,
    /// The model that made it, where known.
    pub model_name: Option<String>,
    /// The version of the model.
    pub model_version: String,
    /// How long the inference took, in milliseconds.
    pub inference_time_ms: f64,
    /// The JSON as it was sent.
    #[schema(value_type = Value, required)]
    pub predictions: Box<RawValue>,
    /// The client's SHA-256 over the request's content, in lower-case hex.
    pub content_sha256: Option<String>,
    /// When it was stored: RFC 3339, UTC, microseconds.
    #[schema(format = DateTime)]
    pub timestamp: String,
}

/// What became of a prediction that was to be stored.
#[derive(Clone, Debug)]
pub enum Put {
    /// It is on the disk.
    Stored {
        /// The record's [`Prediction::timestamp`].
        timestamp: String,
    },
    /// The same request was stored before: this is its record.
    Repeated(Box<Prediction>),
    /// The id belongs to something else.
    Exists,
    /// It was received before its user's last erasure, and is not stored.
    Erased,
}

/// A query for whole rows, as [`read`] takes them; `created_at` and `id` are columns 7 and 8.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT request_id, user_id, model_name, model_version, inference_time_ms, predictions, \
             content_sha256, created_at, id FROM predictions ",
            $rest
        )
    };
}
pub(super) use select;

pub(super) const FIND: &str = select!("WHERE request_id = ?1");

const INSERT: &str = "\
    INSERT INTO predictions (request_id, user_id, model_name, model_version, inference_time_ms, predictions, \
                             content_sha256, created_at) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (request_id) DO NOTHING";

/// Within the writer's transaction: stores `new` with the time `created_at` (microseconds since 1970), or finds out what
/// has its id.
pub(super) fn put(connection: &Connection, new: &NewPrediction, created_at: i64) -> rusqlite::Result<Put> {
    let inserted = connection.prepare_cached(INSERT)?.execute(params![
        new.request_id,
        new.user_id,
        new.model_name,
        new.model_version,
        new.inference_time_ms,
        new.predictions.get(),
        new.content_sha256,
        created_at,
    ])?;
    if inserted == 1 {
        return Ok(Put::Stored { timestamp: text(created_at, 7)? });
    }
    Ok(match find(connection, &new.request_id)? {
        Some(stored) if repeats(new, &stored) => Put::Repeated(Box::new(stored)),
        _ => Put::Exists,
    })
}

/// Without a hash on both sides nobody can tell, so it counts as another request.
fn repeats(new: &NewPrediction, stored: &Prediction) -> bool {
    new.content_sha256.is_some()
        && new.content_sha256 == stored.content_sha256
        && new.user_id == stored.user_id
}

/// The prediction with `request_id`.
pub(super) fn find(connection: &Connection, request_id: &str) -> rusqlite::Result<Option<Prediction>> {
    let mut statement = connection.prepare_cached(FIND)?;
    statement.query_row([request_id], read).optional()
}

/// The prediction in a row of a query that `select!` made.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Prediction> {
    Ok(Prediction {
        request_id: row.get(0)?,
        user_id: row.get(1)?,
        model_name: row.get(2)?,
        model_version: row.get(3)?,
        inference_time_ms: row.get(4)?,
        predictions: RawValue::from_string(row.get(5)?).map_err(|e| invalid(5, e.into()))?,
        content_sha256: row.get(6)?,
        timestamp: text(row.get(7)?, 7)?,
    })
}

/// `created_at`, of the column with this index, as RFC 3339.
fn text(created_at: i64, column: usize) -> rusqlite::Result<String> {
    Timestamp::from_microsecond(created_at).map(to_rfc3339).map_err(|e| invalid(column, e.into()))
}

fn invalid(column: usize, error: Box<dyn Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}
