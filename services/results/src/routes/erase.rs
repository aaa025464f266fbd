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

#[derive(Serialize)]
struct Erased {
    status: &'static str,
    user_id: String,
    deleted_count: u64,
    /// Names the erasure in the operator's list of them.
    receipt_id: String,
    /// When no byte was left.
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
