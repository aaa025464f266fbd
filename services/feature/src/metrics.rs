//! Metrics for Prometheus, in a registry of the service's own: `GET /metrics` on its port.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TEXT_FORMAT, TextEncoder,
};
use sandbox::{SandboxError, Verdict};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::Error;
use crate::error::Failure;

/// From a header that is refused to a prediction that waited for a model.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Every metric of feature-service.
pub(crate) struct Metrics {
    registry: Registry,
    images: IntCounterVec,
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl Metrics {
    /// All metrics in a registry of their own; every verdict is there from the start.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let images = Opts::new("convoy_sandbox_images_total", "Images given to the sandbox by its verdict");
        let images = IntCounterVec::new(images, &["verdict"])?;
        for verdict in Verdict::ALL {
            images.with_label_values(&[verdict.as_str()]);
        }
        let requests =
            Opts::new("convoy_feature_requests_total", "Requests answered, by their route and HTTP status");
        let requests = IntCounterVec::new(requests, &["route", "status"])?;
        let durations = HistogramOpts::new(
            "convoy_feature_request_duration_seconds",
            "Time from a request's headers to its answer, by its route",
        );
        let durations = HistogramVec::new(durations.buckets(SECONDS.to_vec()), &["route"])?;
        let registry = Registry::new();
        registry.register(Box::new(images.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { registry, images, requests, durations })
    }

    /// Counts an image that the sandbox was given.
    pub(crate) fn image_seen<T>(&self, answer: &Result<T, SandboxError>) {
        self.images.with_label_values(&[Verdict::of(answer).as_str()]).inc();
    }

    fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// `GET /metrics`.
pub(crate) async fn render(State(metrics): State<Arc<Metrics>>) -> Result<Response, Failure> {
    let text = metrics
        .text()
        .map_err(|error| Error::Internal { detail: format!("The metrics cannot be written: {error}") })?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

/// Counts and times the requests of every route.
pub(crate) async fn measure(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // The route's pattern, of which there are few, and not what the client wrote.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    metrics.durations.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_verdict_is_counted_under_its_word() {
        let metrics = Metrics::new().unwrap();
        metrics.image_seen(&Ok(()));
        metrics.image_seen::<()>(&Err(SandboxError::NotAnImage));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for verdict in Verdict::ALL {
            let count = u8::from(matches!(verdict, Verdict::Accepted | Verdict::NotAnImage));
            let line = format!("convoy_sandbox_images_total{{verdict=\"{verdict}\"}} {count}");
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
