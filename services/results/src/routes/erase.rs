//! `DELETE /predictions/user/{user_id}`.

use super::{Service, path_identifier};
use crate::error::RequestError;
use crate::store::Erasure;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;
use service_kit::JsonError;
use service_kit::openapi::{BadRequest, Internal, Overloaded};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
struct Erased {
    /// Always `success`.
    status: &'static str,
    user_id: String,
    deleted_count: u64,
    /// Names the erasure in the operator's list of them.
    receipt_id: String,
    /// When no byte was left.
    #[schema(format = DateTime)]
    erased_at: Option<String>,
}

/// An error body that names the receipt.
#[derive(Serialize)]
struct Pending {
    error: &'static str,
    code: &'static str,
    request_id: Option<String>,
    status: &'static str,
    receipt_id: Option<String>,
}

/// Erase a user
///
/// The answer comes when no byte of the user's data is left in the database, its write-ahead log and its shared memory.
/// What was received before it and is still on its way is refused with 409 `erased`. Backups and replicas are the
/// operator's: see `docs/results-service.md`.
#[utoipa::path(delete, path = "/predictions/user/{user_id}", tag = "users",
    params(("user_id" = String, Path, min_length = 1, max_length = 256)),
    responses((status = 200, description = "No byte is left.", body = Erased),
        (status = 503, description = "With `\"status\": \"pending\"`: it goes on; the same request again gets the same receipt. Else nothing was begun.",
            body = PendingOrFailed, headers(("Retry-After" = u64, description = "Seconds after which to try again."))),
        BadRequest, Overloaded, Internal))]
pub(super) async fn erase(
    State(service): State<Service>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, JsonError> {
    let user_id = path_identifier("user_id", path)?;
    let store = service.store.opened()?;
    match store.erase_user(user_id.clone()).await.map_err(RequestError::from)? {
        Erasure::Done(receipt) => Ok(Json(Erased {
            status: "success",
            user_id,
            deleted_count: receipt.deleted_count,
            receipt_id: receipt.receipt_id,
            erased_at: receipt.completed_at,
        })
        .into_response()),
        Erasure::Pending { receipt_id } => {
            let pending = Pending {
                error: "The predictions are being erased, and copies may still be in the files: send the request \
                        again to learn when it is done.",
                code: "unavailable",
                request_id: None,
                status: "pending",
                receipt_id,
            };
            let retry_after = [(header::RETRY_AFTER, "1")];
            Ok((StatusCode::SERVICE_UNAVAILABLE, retry_after, Json(pending)).into_response())
        }
    }
}

/// The body of a 503.
#[derive(ToSchema)]
#[schema(as = NotErased)]
#[expect(dead_code, reason = "it is the documentation of two answers with one status")]
struct PendingOrFailed {
    error: String,
    code: String,
    request_id: Option<String>,
    /// `pending` when the erasure was begun.
    #[schema(nullable = false)]
    status: Option<String>,
    /// Of an erasure that was begun.
    receipt_id: Option<String>,
}
