//! The router.

mod predict;
mod preprocess;

use crate::body::{BodyReader, Bounds};
use crate::inference::{Call, ModelServing};
use crate::metrics::{self, Metrics};
use crate::offload::Offload;
use crate::openapi::Api;
use crate::peers::{Peers, States};
use crate::predict_request::json_limit;
use crate::prediction::Predictor;
use crate::results::Results;
use crate::{Config, RunError, SERVICE};
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use sandbox::Sandbox;
use serde::Serialize;
use service_kit::openapi::document;
use service_kit::{Readiness, api_docs, http_server};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the handlers share; cheap to clone.
#[derive(Clone, Debug)]
struct App {
    predictor: Predictor,
    peers: Peers,
    offload: Offload,
    bodies: BodyReader,
    readiness: Readiness,
    request_timeout: Duration,
    max_image_bytes: usize,
}

/// The routes of feature-service, for a server (see [`run`](crate::run)) or for tests without one.
///
/// # Errors
/// When a URL of the configuration cannot be called, the HTTP client cannot be made or the metrics not be registered.
pub fn router(config: &Config, sandbox: Sandbox, readiness: Readiness) -> Result<Router, RunError> {
    let models = ModelServing::new(&config.model_serving_url)?;
    let results = Results::new(&config.results_url)?;
    let metrics = Arc::new(Metrics::new()?);
    let app = App {
        peers: Peers::new(models.clone(), results.clone()),
        predictor: Predictor { sandbox, models, results, metrics: Arc::clone(&metrics) },
        offload: Offload::new(),
        bodies: BodyReader::new(json_limit(config.max_image_bytes.get())),
        readiness,
        request_timeout: config.request_timeout,
        max_image_bytes: config.max_image_bytes.get(),
    };
    let (router, described) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(ready))
        .routes(routes!(preprocess::preprocess))
        .routes(routes!(predict::predict))
        .split_for_parts();
    Ok(router
        // The handlers read bodies themselves, each within its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
        .merge(http_server::health_route(SERVICE))
        .merge(api_docs::routes(document(described)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&metrics), metrics::measure))
        // Who scrapes is not measured.
        .route("/metrics", get(metrics::render).with_state(metrics)))
}

impl App {
    /// The bounds of a request that arrives now.
    fn bounds(&self, limit: usize) -> Bounds {
        Bounds { limit, deadline: Instant::now() + self.request_timeout, timeout: self.request_timeout }
    }
}

/// The longest trace context that is passed on, in bytes: those of version 00 have 55. A longer one would make the
/// peers refuse the calls, and be in every log line.
const MAX_TRACEPARENT: usize = 256;

/// What calls to peers inherit from a request.
fn call(deadline: Instant, headers: &HeaderMap) -> Call {
    let traceparent = headers.get("traceparent").filter(|value| value.len() <= MAX_TRACEPARENT);
    Call { deadline, traceparent: traceparent.cloned(), replica: None }
}

/// The body of `GET /ready`: the service's own readiness, and what its peers say of theirs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReadyWithPeers)]
struct Ready {
    /// Whether the service can do its work now.
    ready: bool,
    service: &'static str,
    waiting_for: Vec<String>,
    /// What the services behind this one say of themselves; one that is down does not make this one unready.
    peers: States,
}

/// Whether the service can do its work, and what its peers say
#[utoipa::path(get, path = "/ready", tag = "service", responses(
    (status = 200, description = "It can.", body = Ready),
    (status = 503, description = "It cannot yet, or not any more.", body = Ready)))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let peers = app.peers.states().await;
    let waiting_for = app.readiness.waiting_for();
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, service: SERVICE, waiting_for, peers }))
}
