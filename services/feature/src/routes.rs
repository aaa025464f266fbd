//! The router.

mod predict;
mod preprocess;

use crate::body::{BodyReader, Bounds};
use crate::inference::{Call, ModelServing};
use crate::metrics::{self, Metrics};
use crate::offload::Offload;
use crate::peers::{Peers, States};
use crate::predict_request::json_limit;
use crate::prediction::Predictor;
use crate::results::Results;
use crate::{Config, RunError, SERVICE};
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use sandbox::Sandbox;
use serde::Serialize;
use service_kit::{Readiness, http_server};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
        bodies: BodyReader::new(json_limit(config.max_image_bytes)),
        readiness,
        request_timeout: config.request_timeout,
        max_image_bytes: config.max_image_bytes,
    };
    Ok(Router::new()
        .route("/ready", get(ready))
        .route("/preprocess", post(preprocess::preprocess))
        .route("/predict", post(predict::predict))
        // The handlers read bodies themselves, each within its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
        .merge(http_server::health_route(SERVICE))
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
    Call { deadline, traceparent: traceparent.cloned() }
}

/// The body of `GET /ready`: the service's own readiness, and what its peers say of theirs.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    service: &'static str,
    waiting_for: Vec<String>,
    peers: States,
}

async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let peers = app.peers.states().await;
    let waiting_for = app.readiness.waiting_for();
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, service: SERVICE, waiting_for, peers }))
}
