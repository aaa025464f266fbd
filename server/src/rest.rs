//! The REST face: the Open Inference Protocol over HTTP with Triton's extensions, health and readiness; and the metrics,
//! on a port of their own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`describe`] | what is answered about server and models |
//! | [`infer`] | an inference, from its body to its answer |
//! | [`request`], [`answer`], [`elements`] | the bodies: JSON, alone or with binary tensors |
//! | [`repository`] | index, loading, unloading, statistics |
//! | [`admission`] | what is refused on its headers, and what requests hold |
//! | [`encoding`] | gzip and deflate |
//! | [`failure`] | where a failed request ends |

mod admission;
mod answer;
mod describe;
mod elements;
mod encoding;
pub(crate) mod failure;
mod infer;
mod repository;
mod request;

use crate::metrics;
use crate::repository::ModelVersion;
use crate::state::ServingState;
use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get, post};
use http::{StatusCode, header};
use serde::Deserialize;
use service_kit::http_server::{health_route, ready_route};
use service_kit::{JsonError, Readiness};
use std::sync::Arc;

/// The name in the answers of `/health` and `/ready`.
const SERVICE: &str = "model-serving";

/// The routes of `--http-addr`.
pub(crate) fn router(state: Arc<ServingState>, readiness: Readiness) -> Router {
    let mut router = Router::new()
        .route("/v2", get(describe::server_metadata))
        .route("/v2/", get(describe::server_metadata))
        .route("/v2/health/live", get(StatusCode::OK))
        .route("/v2/health/ready", get(describe::server_ready))
        .route("/v2/models/stats", get(repository::all_statistics))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload));
    let of_models: [(&str, MethodRouter<Arc<ServingState>>); 5] = [
        ("", get(describe::model_metadata)),
        ("/ready", get(describe::model_ready)),
        ("/config", get(describe::model_config)),
        ("/infer", post(infer::infer)),
        ("/stats", get(repository::statistics)),
    ];
    for (path, handler) in of_models {
        router = router
            .route(&format!("/v2/models/{{model}}{path}"), handler.clone())
            .route(&format!("/v2/models/{{model}}/versions/{{version}}{path}"), handler);
    }
    for (path, what) in NOT_SUPPORTED {
        router = router.route(path, any(move || async move { failure::not_supported(what) }));
    }
    router = router.layer(middleware::from_fn_with_state(Arc::clone(&state), admission::admit));
    router.with_state(state).merge(health_route(SERVICE)).merge(ready_route(SERVICE, readiness))
}

/// What Triton's clients may ask for, and is not there.
const NOT_SUPPORTED: [(&str, &str); 5] = [
    ("/v2/systemsharedmemory/{*call}", "Shared memory"),
    ("/v2/cudasharedmemory/{*call}", "CUDA shared memory"),
    ("/v2/trace/setting", "Changing trace settings"),
    ("/v2/models/{model}/trace/setting", "Changing trace settings"),
    ("/v2/logging", "Changing log settings while the server runs"),
];

/// The routes of `--metrics-addr`.
pub(crate) fn metrics_router(metrics: Arc<metrics::Metrics>) -> Router {
    Router::new().route("/metrics", get(render_metrics)).with_state(metrics)
}

async fn render_metrics(State(metrics): State<Arc<metrics::Metrics>>) -> Result<Response, JsonError> {
    let text =
        metrics.render().map_err(|error| failure::internal("The metrics cannot be written", &error))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// What a path names.
#[derive(Deserialize)]
struct Named {
    model: String,
    /// Absent: the newest one.
    #[serde(default)]
    version: String,
}

fn find(state: &ServingState, named: &Named) -> Result<Arc<ModelVersion>, JsonError> {
    state.model(&named.model, &named.version).map_err(|error| failure::answer(&error, &named.model, ""))
}
