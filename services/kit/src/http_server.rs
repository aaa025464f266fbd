//! Serves an axum router on a listener of the caller until [`Shutdown`] says stop, and the routes that every REST
//! face of Convoy has.

use crate::json_error::{no_such_method, no_such_path};
use crate::timestamp::now_rfc3339;
use crate::{ConnectionHandle, Listening, Readiness, Shutdown};
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode, Version};
use http_body_util::BodyExt as _;
use serde::Serialize;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// How long, and for how many bytes, what a client still sends of a refused body is thrown away.
const DISCARD_TIME: Duration = Duration::from_secs(10);
const DISCARD_BYTES: usize = 512 << 20;

/// The body of `GET /health`: the process answers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Always `healthy`: whether the service can do its work is what `/ready` says.
    pub status: &'static str,
    /// The service's name.
    pub service: &'static str,
    /// When it answered: RFC 3339, UTC.
    pub timestamp: String,
}

impl Health {
    /// `healthy`, now.
    pub fn now(service: &'static str) -> Self {
        Self { status: "healthy", service, timestamp: now_rfc3339() }
    }
}

/// The body of `GET /ready`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Whether the service can do its work now; the status is 200 then, else 503.
    pub ready: bool,
    /// The service's name.
    pub service: &'static str,
    /// What is being waited for.
    pub waiting_for: Vec<String>,
}

/// `GET /health` for `service`: 200 as long as the process answers.
pub fn health_route<S: Clone + Send + Sync + 'static>(service: &'static str) -> Router<S> {
    Router::new().route("/health", get(move || async move { Json(Health::now(service)) }))
}

/// `GET /ready` for `service`: 200 when nothing holds `readiness`, else 503 with what does.
pub fn ready_route<S: Clone + Send + Sync + 'static>(
    service: &'static str,
    readiness: Readiness,
) -> Router<S> {
    let answer = move |State(readiness): State<Readiness>| async move { ready_response(service, &readiness) };
    Router::new().route("/ready", get(answer).with_state(readiness))
}

fn ready_response(service: &'static str, readiness: &Readiness) -> Response {
    let waiting_for = readiness.waiting_for();
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, service, waiting_for })).into_response()
}

/// Serves `router` on `listener` until `shutdown` stops: then the listener is closed as [`Listening`] says, and open
/// requests are served to their end.
///
/// While `shutdown` drains, answers ask clients to close their connections: one that is idle when the listener closes
/// is closed too, and a request that is on its way on it just then would be lost.
///
/// Unknown paths and methods are answered in the JSON error shape. Requests carry `ConnectInfo<ConnectionHandle>`.
///
/// # Errors
/// When `listener` has no address.
pub async fn serve(listener: TcpListener, router: Router, shutdown: &Shutdown) -> std::io::Result<()> {
    let listening = Listening::new(listener, shutdown)?;
    let closed = listening.closed();
    let router =
        with_fallbacks(router).layer(middleware::from_fn_with_state(shutdown.clone(), close_while_draining));
    let service = router.into_make_service_with_connect_info::<ConnectionHandle>();
    axum::serve(listening, service).with_graceful_shutdown(closed).await
}

async fn close_while_draining(State(shutdown): State<Shutdown>, request: Request, next: Next) -> Response {
    // In HTTP/2 there is no such header: its connections end with a GOAWAY, after which clients send again.
    let has_header = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if has_header && shutdown.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Throws away what the client still sends, for a while, beside the answer that goes out meanwhile.
///
/// Without this the connection is closed while the client writes. Many clients then report a broken pipe and never
/// read the answer that says what is wrong.
pub fn discard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let drain = async {
            let mut left = DISCARD_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                if length > left {
                    return;
                }
                left -= length;
            }
        };
        // A client that is slower still is cut off.
        let _ = timeout(DISCARD_TIME, drain).await;
    });
}

/// `router` as [`serve`] serves it: unknown paths (404) and methods (405) are answered in the JSON error shape. Tests
/// that call a router without a listener want the same.
pub fn with_fallbacks(router: Router) -> Router {
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_error::ErrorBody;
    use http::Request;
    use tower::ServiceExt as _;

    async fn status_of(router: Router, path: &str) -> StatusCode {
        let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
        router.oneshot(request).await.expect("infallible").status()
    }

    #[tokio::test]
    async fn health_answers_while_ready_waits() {
        let readiness = Readiness::new();
        let router: Router = health_route("test").merge(ready_route("test", readiness.clone()));
        let hold = readiness.hold("a model");
        assert_eq!(status_of(router.clone(), "/health").await, StatusCode::OK);
        assert_eq!(status_of(router.clone(), "/ready").await, StatusCode::SERVICE_UNAVAILABLE);
        drop(hold);
        assert_eq!(status_of(router, "/ready").await, StatusCode::OK);
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_answered_in_the_error_shape() {
        let router = with_fallbacks(health_route("test"));
        for (method, path, status) in
            [("GET", "/nothing", StatusCode::NOT_FOUND), ("POST", "/health", StatusCode::METHOD_NOT_ALLOWED)]
        {
            let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty());
            let response = router.clone().oneshot(request.expect("a request")).await.expect("infallible");
            assert_eq!(response.status(), status);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                assert_eq!(response.headers()[http::header::ALLOW], "GET,HEAD");
            }
            let body = response.into_body().collect().await.expect("a body in memory").to_bytes();
            let body: ErrorBody = serde_json::from_slice(&body).expect("the error shape");
            assert!(body.error.contains(path), "{}", body.error);
        }
    }

    #[tokio::test]
    async fn connections_are_kept_until_it_drains_and_open_requests_are_served() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutdown = Shutdown::new();
        let served = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { serve(listener, health_route("test"), &shutdown).await }
        });
        let mut client = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let mut ask = async |close: bool| {
            client.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                assert_ne!(client.read_buf(&mut answer).await.expect("open"), 0, "closed");
            }
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert_eq!(answer.contains("connection: close"), close, "{answer}");
        };
        ask(false).await;
        shutdown.drain();
        ask(true).await;

        let mut late = tokio::net::TcpStream::connect(address).await.expect("it still listens");
        shutdown.stop();
        late.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        let mut answer = String::new();
        late.read_to_string(&mut answer).await.expect("served, then closed");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        served.await.expect("no panic").expect("no error");
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it is closed");
    }
}
