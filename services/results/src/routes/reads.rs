//! Reading: one prediction, a user's, everybody's.

use super::listing::{self, Form};
use super::query::{ListParameters, ListQuery};
use super::{Operator, Service, path_identifier};
use crate::error::RequestError;
use crate::openapi::{Listing, UserListing};
use crate::store::{Cursor, Filter, Prediction, Stats};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::Uri;
use service_kit::JsonError;
use service_kit::openapi::{BadRequest, Internal, NotFound, Overloaded, Unavailable};

/// One prediction
#[utoipa::path(get, path = "/predictions/{request_id}", tag = "predictions",
    params(("request_id" = String, Path, min_length = 1, max_length = 256)),
    responses((status = 200, description = "It.", body = Prediction),
        BadRequest, NotFound, Overloaded, Unavailable, Internal))]
pub(super) async fn show(
    State(service): State<Service>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, JsonError> {
    let request_id = path_identifier("request_id", path)?;
    let named = |error: RequestError| JsonError::from(error).with_request_id(request_id.clone());
    let store = service.store.opened().map_err(named)?;
    match store.get(request_id.clone()).await.map_err(|error| named(error.into()))? {
        Some(prediction) => Ok(Json(prediction).into_response()),
        None => Err(named(RequestError::NotFound)),
    }
}

/// A user's predictions, newest first
///
/// It is streamed: as long as it may be, neither side needs memory for all of it. If the database fails half-way, the
/// connection breaks off.
#[utoipa::path(get, path = "/predictions/user/{user_id}", tag = "users",
    params(("user_id" = String, Path, min_length = 1, max_length = 256), ListParameters),
    responses((status = 200, description = "Those that match; none of a user who is not known.", body = UserListing),
        BadRequest, Overloaded, Unavailable, Internal))]
pub(super) async fn list(
    State(service): State<Service>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, JsonError> {
    let user_id = path_identifier("user_id", path)?;
    let query = ListQuery::of(&uri, Some(user_id))?;
    Ok(listing::answer(service.store.opened()?.clone(), query, Form::Json).await?)
}

/// All data of a user, as a file
///
/// Newline-delimited JSON: each line is what `GET /predictions/{request_id}` answers, newest first.
#[utoipa::path(get, path = "/predictions/user/{user_id}/export", tag = "users",
    params(("user_id" = String, Path, min_length = 1, max_length = 256)),
    responses((status = 200, description = "A line for each prediction; empty for a user who is not known.",
            body = String, content_type = "application/x-ndjson",
            headers(("Content-Disposition" = String, description = "A browser saves it as a file."))),
        BadRequest, Overloaded, Unavailable, Internal))]
pub(super) async fn export(
    State(service): State<Service>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, JsonError> {
    let filter = Filter { user_id: Some(path_identifier("user_id", path)?), ..Filter::default() };
    let query = ListQuery { filter, from: Cursor::NEWEST, limit: None };
    Ok(listing::answer(service.store.opened()?.clone(), query, Form::Export).await?)
}

/// All users' predictions, newest first
#[utoipa::path(get, path = "/predictions", tag = "operator", params(ListParameters),
    responses((status = 200, description = "Those that match.", body = Listing),
        BadRequest, Overloaded, Unavailable, Internal))]
pub(super) async fn list_all(State(face): State<Operator>, uri: Uri) -> Result<Response, JsonError> {
    let query = ListQuery::of(&uri, None)?;
    Ok(listing::answer(face.store.opened()?.clone(), query, Form::Json).await?)
}

/// Counts per model, class and day, and the sizes of the files
///
/// It reads everything, in many short transactions: a second or two for a million predictions.
#[utoipa::path(get, path = "/stats", tag = "operator",
    responses((status = 200, description = "The counts.", body = Stats), Overloaded, Unavailable, Internal))]
pub(super) async fn stats(State(face): State<Operator>) -> Result<Json<Stats>, JsonError> {
    Ok(Json(face.store.opened()?.stats().await.map_err(RequestError::from)?))
}
