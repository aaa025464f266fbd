//! What only the operator may ask, besides listings and counts: backups, and the receipts of erasures.

use super::Operator;
use crate::error::RequestError;
use crate::store::{Backup, BackupError, Receipt};
use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use service_kit::JsonError;
use service_kit::openapi::{
    BadRequest, Conflict, Internal, Overloaded, TooLarge, Unavailable, UnsupportedMediaType,
};
use utoipa::{IntoParams, ToSchema};

/// Receipts in an answer that is not asked for fewer or more.
const RECEIPTS: usize = 100;
/// The most receipts in an answer: they are a few hundred bytes each.
const MAX_RECEIPTS: usize = 10_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ErasuresQuery {
    /// Most receipts in the answer; 100 when missing.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// Receipts of erasures.
#[derive(Serialize, ToSchema)]
pub(super) struct Erasures {
    /// Newest first.
    erasures: Vec<Receipt>,
    /// How many there are in all.
    count: usize,
}

/// The receipts of erasures, newest first
///
/// They name users by a keyed hash alone, and outlive the database: a restore applies them again.
#[utoipa::path(get, path = "/erasures", tag = "operator", params(ErasuresQuery),
    responses((status = 200, description = "The receipts.", body = Erasures), BadRequest, Unavailable, Internal))]
pub(super) async fn erasures(State(face): State<Operator>, uri: Uri) -> Result<Json<Erasures>, JsonError> {
    let Query(query) = Query::<ErasuresQuery>::try_from_uri(&uri)
        .map_err(|error| RequestError::BadQuery(error.body_text()))?;
    let limit = query.limit.unwrap_or(RECEIPTS);
    if !(1..=MAX_RECEIPTS).contains(&limit) {
        return Err(
            RequestError::WrongField { field: "limit", expected: "a whole number from 1 to 10000" }.into()
        );
    }
    let (erasures, count) = face.store.opened()?.receipts(limit);
    Ok(Json(Erasures { erasures, count }))
}

/// A backup that is asked for.
#[derive(Deserialize, ToSchema)]
pub(super) struct BackupRequest {
    /// Its name in the folder for backups; never a path, and never that of a file which exists.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[0-9A-Za-z_][0-9A-Za-z._-]*$",
        example = "predictions-2026-11-23.db"
    )]
    file_name: String,
}

/// A backup that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupMade {
    file_name: String,
    /// Its size.
    bytes: u64,
    /// How long it took.
    duration_ms: f64,
}

/// Back the database up, while it is in use
///
/// A consistent copy as of now, in the folder that `--backup-dir` names. Receipts of erasures and their key are not in
/// it: `convoy restore` applies those made since.
#[utoipa::path(post, path = "/backup", tag = "operator", request_body = BackupRequest,
    responses((status = 201, description = "It is on the disk.", body = BackupMade),
        BadRequest, Conflict, TooLarge, UnsupportedMediaType, Overloaded, Unavailable, Internal))]
pub(super) async fn backup(State(face): State<Operator>, request: Request) -> Result<Response, JsonError> {
    let body = face.bodies.read_json(request).await?;
    // serde would take an array for the fields in their order.
    if body.bytes.trim_ascii_start().starts_with(b"[") {
        return Err(RequestError::NotAnObject.into());
    }
    let BackupRequest { file_name } =
        serde_json::from_slice(&body.bytes).map_err(|error| RequestError::NotJson(error.to_string()))?;
    let folder = face.backup_dir.as_ref().ok_or(RequestError::NoBackupFolder)?;
    if !is_file_name(&file_name) {
        return Err(RequestError::WrongField { field: "file_name", expected: FILE_NAME }.into());
    }
    let made = face.store.opened()?.backup(folder.join(&file_name)).await;
    let Backup { bytes, duration, .. } = made.map_err(failed)?;
    tracing::info!(file_name, bytes, duration_ms = duration.as_secs_f64() * 1_000.0, "backup made");
    let made = BackupMade { file_name, bytes, duration_ms: duration.as_secs_f64() * 1_000.0 };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

const FILE_NAME: &str = "the name of a file: 1 to 200 letters, digits, underscores, dots and hyphens, the first of them neither a dot nor a hyphen";

fn is_file_name(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=200).contains(&name.len()) && name.bytes().all(part) && !name.starts_with(['.', '-'])
}

fn failed(error: BackupError) -> RequestError {
    match error {
        BackupError::Running => RequestError::BackupRunning,
        BackupError::Exists { .. } => RequestError::BackupExists,
        error => {
            tracing::error!(%error, "a backup failed");
            RequestError::BackupFailed(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_never_a_path() {
        for good in ["a", "predictions-2026-11-23.db", "_7", &"x".repeat(200)] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/a",
            "-rf",
            ".hidden",
            "a\\b",
            "a\0",
            "ü",
            "a b",
            &"x".repeat(201),
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
