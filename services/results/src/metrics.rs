//! `GET /metrics` on the service's own port: the requests, and what the store tells of itself.

use crate::error::RequestError;
use crate::routes::StoreSlot;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::header::CONTENT_TYPE;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TEXT_FORMAT, TextEncoder,
};
use service_kit::JsonError;
use std::sync::Arc;
use std::time::Instant;

/// From an indexed read to an erasure that scrubs.
const SECONDS: [f64; 15] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of both faces' requests; cheap to clone, all clones count together.
#[derive(Clone)]
pub struct RequestMetrics(Arc<Families>);

struct Families {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl RequestMetrics {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When a name is not one of Prometheus', which a test would tell.
    pub fn new() -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "convoy_results_requests_total",
            "Requests answered, by their route, method and HTTP status",
        );
        let requests = IntCounterVec::new(requests, &["route", "method", "status"])?;
        let durations = HistogramOpts::new(
            "convoy_results_request_duration_seconds",
            "Time from a request's headers to those of its answer, by its route and method",
        );
        let durations = HistogramVec::new(durations.buckets(SECONDS.to_vec()), &["route", "method"])?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self(Arc::new(Families { registry, requests, durations })))
    }
}

/// Counts and times the requests of every route.
pub(crate) async fn measure(
    State(RequestMetrics(metrics)): State<RequestMetrics>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    // The route's pattern, of which there are few, and not what the client wrote: that names a person.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    let method = known(&method);
    metrics.requests.with_label_values(&[route, method, response.status().as_str()]).inc();
    metrics.durations.with_label_values(&[route, method]).observe(started.elapsed().as_secs_f64());
    response
}

/// The method's name; one label for all that a client made up.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::DELETE => method.as_str(),
        _ => "other",
    }
}

/// Both the requests' metrics and, once it is open, the store's.
pub(crate) async fn render(
    State((store, RequestMetrics(metrics))): State<(StoreSlot, RequestMetrics)>,
) -> Result<Response, JsonError> {
    let mut families = metrics.registry.gather();
    families.extend(store.get().map(|store| store.metrics()).unwrap_or_default());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        RequestError::Internal
    })?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}
