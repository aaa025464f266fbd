//! The REST faces. Handlers check what comes in and shape what goes out; the store does the rest.
//!
//! | path | what it does |
//! |---|---|
//! | `POST /predictions` | stores a prediction, 201 once it is on the disk; or an array of them |
//! | `GET /predictions/{request_id}` | the prediction |
//! | `GET /predictions/user/{user_id}` | all of a user's, newest first, streamed |
//! | `DELETE /predictions/user/{user_id}` | erases them |
//! | `GET /health`, `GET /ready` | on both faces |
//! | `GET /stats` | the operator's: counts and sizes |
//!
//! Ids in paths are percent-encoded where they hold `/`, `?`, `#` or `%`; a request may well be named `user`.

mod body;
mod create;
mod erase;
mod listing;
mod new_prediction;

#[cfg(test)]
mod tests;

use crate::SERVICE;
use crate::error::{RequestError, check_identifier};
use crate::store::{PredictionStore, Stats};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use body::BodyReader;
use service_kit::http_server::{health_route, ready_route};
use service_kit::{JsonError, Readiness};
use std::sync::{Arc, OnceLock};

/// Where the store is once it is open; requests before that are told to come again. Clones are the same slot.
#[derive(Clone, Default)]
pub struct StoreSlot(Arc<OnceLock<PredictionStore>>);

impl StoreSlot {
    /// Fills the slot; what is in it stays.
    pub fn set(&self, store: PredictionStore) {
        // A second store is a mistake of the caller that harms nobody: it closes as its handle drops.
        let _ = self.0.set(store);
    }

    /// The store, if it is open.
    pub fn get(&self) -> Option<&PredictionStore> {
        self.0.get()
    }

    fn opened(&self) -> Result<&PredictionStore, RequestError> {
        self.get().ok_or(RequestError::Starting)
    }
}

#[derive(Clone)]
struct Service {
    store: StoreSlot,
    bodies: BodyReader,
}

/// The service's own face, without the fallbacks that [`service_kit::http_server::serve`] adds.
pub fn public(store: StoreSlot, readiness: Readiness) -> Router {
    Router::new()
        .route("/predictions", post(create::create))
        .route("/predictions/{request_id}", get(show))
        .route("/predictions/user/{user_id}", get(list).delete(erase::erase))
        .with_state(Service { store, bodies: BodyReader::new() })
        .merge(health_route(SERVICE))
        .merge(ready_route(SERVICE, readiness))
}

/// The operator's face, without the fallbacks that [`service_kit::http_server::serve`] adds.
pub fn admin(store: StoreSlot, readiness: Readiness) -> Router {
    Router::new()
        .route("/stats", get(stats))
        .with_state(store)
        .merge(health_route(SERVICE))
        .merge(ready_route(SERVICE, readiness))
}

async fn show(
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

async fn list(
    State(service): State<Service>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, JsonError> {
    let user_id = path_identifier("user_id", path)?;
    Ok(listing::answer(service.store.opened()?.clone(), user_id).await?)
}

async fn stats(State(store): State<StoreSlot>) -> Result<Json<Stats>, JsonError> {
    Ok(Json(store.opened()?.stats().await.map_err(RequestError::from)?))
}

fn path_identifier(
    field: &'static str,
    path: Result<Path<String>, PathRejection>,
) -> Result<String, JsonError> {
    let Path(id) = path?;
    check_identifier(field, &id)?;
    Ok(id)
}
