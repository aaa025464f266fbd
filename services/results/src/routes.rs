//! The REST faces. Handlers check what comes in and shape what goes out; the store does the rest.
//!
//! | path | what it does |
//! |---|---|
//! | `POST /predictions` | stores a prediction, 201 once it is on the disk; or an array of them |
//! | `GET /predictions/{request_id}` | the prediction |
//! | `GET /predictions/user/{user_id}` | a user's, newest first, filtered, streamed |
//! | `GET /predictions/user/{user_id}/export` | all of a user's, as a file |
//! | `DELETE /predictions/user/{user_id}` | erases them |
//! | `GET /predictions` | the operator's: all users' |
//! | `GET /stats` | the operator's: counts and sizes |
//! | `GET /erasures` | the operator's: receipts |
//! | `POST /backup` | the operator's: a copy in the folder for backups |
//! | `GET /metrics` | on the service's own face |
//! | `GET /health`, `GET /ready` | on both faces |
//! | `GET /openapi.json`, `GET /docs` | on both faces: what each of them can do |
//!
//! Ids in paths are percent-encoded where they hold `/`, `?`, `#` or `%`; a request may well be named `user`.

mod body;
mod create;
mod erase;
mod listing;
mod new_prediction;
mod operator;
mod query;
mod reads;

#[cfg(test)]
mod tests;

use crate::SERVICE;
use crate::error::{RequestError, check_identifier};
use crate::metrics::{self, RequestMetrics};
use crate::openapi;
use crate::store::PredictionStore;
use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::middleware;
use axum::routing::get;
use body::BodyReader;
pub(crate) use create::MAX_ELEMENTS;
use service_kit::http_server::{health_route, ready_route};
use service_kit::openapi::document;
use service_kit::{JsonError, Readiness, api_docs};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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

/// What the handlers of the service's own face share.
#[derive(Clone)]
struct Service {
    store: StoreSlot,
    bodies: BodyReader,
}

/// What those of the operator's face share.
#[derive(Clone)]
struct Operator {
    store: StoreSlot,
    bodies: BodyReader,
    backup_dir: Option<PathBuf>,
}

/// The two faces of one service.
#[derive(Clone)]
pub struct Faces {
    store: StoreSlot,
    readiness: Readiness,
    metrics: RequestMetrics,
    bodies: BodyReader,
    backup_dir: Option<PathBuf>,
}

impl Faces {
    /// Both wait for `store` to be filled. Backups that an operator asks for are made in `backup_dir`.
    ///
    /// # Errors
    /// As [`RequestMetrics::new`].
    pub fn new(
        store: StoreSlot,
        readiness: Readiness,
        backup_dir: Option<PathBuf>,
    ) -> Result<Self, prometheus::Error> {
        let (metrics, bodies) = (RequestMetrics::new()?, BodyReader::new());
        Ok(Self { store, readiness, metrics, bodies, backup_dir })
    }

    /// The service's own face, without the fallbacks that [`service_kit::http_server::serve`] adds.
    pub fn public(&self) -> Router {
        let (router, described) = OpenApiRouter::with_openapi(openapi::Public::openapi())
            .routes(routes!(create::create))
            .routes(routes!(reads::show))
            .routes(routes!(reads::list, erase::erase))
            .routes(routes!(reads::export))
            .split_for_parts();
        let router = router.with_state(Service { store: self.store.clone(), bodies: self.bodies.clone() });
        let shown = (self.store.clone(), self.metrics.clone());
        self.complete(router, document(described))
            // Who scrapes is not measured.
            .route("/metrics", get(metrics::render).with_state(shown))
    }

    /// The operator's face, without the fallbacks that [`service_kit::http_server::serve`] adds.
    pub fn admin(&self) -> Router {
        let (router, described) = OpenApiRouter::with_openapi(openapi::Operator::openapi())
            .routes(routes!(reads::list_all))
            .routes(routes!(reads::stats))
            .routes(routes!(operator::erasures))
            .routes(routes!(operator::backup))
            .split_for_parts();
        let Self { store, bodies, backup_dir, .. } = self.clone();
        self.complete(router.with_state(Operator { store, bodies, backup_dir }), document(described))
    }

    /// What both have.
    fn complete(&self, router: Router, document: String) -> Router {
        router
            .merge(health_route(SERVICE))
            .merge(ready_route(SERVICE, self.readiness.clone()))
            .merge(api_docs::routes(document))
            .route_layer(middleware::from_fn_with_state(self.metrics.clone(), metrics::measure))
    }
}

fn path_identifier(
    field: &'static str,
    path: Result<Path<String>, PathRejection>,
) -> Result<String, JsonError> {
    let Path(id) = path?;
    check_identifier(field, &id)?;
    Ok(id)
}
