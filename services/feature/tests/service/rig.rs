//! A router of feature-service in front of fake peers, and the requests that tests send through it.

use crate::fakes::{FakeModels, FakeResults};
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feature_service::Config;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};
use service_kit::Readiness;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tower::ServiceExt as _;

/// A street with a bus and cars: 546×413 pixels, RGB JPEG.
pub(crate) const PHOTO: &[u8] = include_bytes!("../../../../tests/photos/double_decker_bus.jpg");

/// The component takes a while to compile: once for all tests.
pub(crate) fn sandbox() -> Sandbox {
    static SANDBOX: LazyLock<Sandbox> =
        LazyLock::new(|| Sandbox::new(SandboxConfig::default()).expect("the embedded component works"));
    SANDBOX.clone()
}

/// A service and its two peers.
pub(crate) struct Rig {
    pub(crate) router: Router,
    pub(crate) models: Arc<FakeModels>,
    pub(crate) results: Arc<FakeResults>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A rig whose configuration is changed before it starts; the URLs are those of the fakes already.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (models, results) = (FakeModels::start().await, FakeResults::start().await);
        let mut config = config(&models.url(), &results.url());
        change(&mut config);
        config.validate().unwrap();
        let router = feature_service::router(&config, sandbox(), Readiness::new()).unwrap();
        Self { router, models, results }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    /// `POST /predict` with JSON.
    pub(crate) async fn predict(&self, body: &Value) -> Answer {
        self.send(json_request("/predict", body)).await
    }
}

pub(crate) fn config(model_serving_url: &str, results_url: &str) -> Config {
    Config {
        feature_addr: "127.0.0.1:0".parse().unwrap(),
        model_serving_url: model_serving_url.to_owned(),
        results_url: results_url.to_owned(),
        request_timeout: Duration::from_secs(30),
        max_image_bytes: (1 << 20).into(),
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| panic!("every answer is JSON: {:?}", String::from_utf8_lossy(&bytes)));
    Answer { status: parts.status, headers: parts.headers, body }
}

pub(crate) fn json_request(path: &str, body: &Value) -> Request<Body> {
    request(path, "application/json", body.to_string())
}

pub(crate) fn request(path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", content_type).body(body.into()).unwrap()
}

pub(crate) fn photo_base64() -> String {
    STANDARD.encode(PHOTO)
}

/// A JSON request for a prediction on the photo.
pub(crate) fn photo_of(request_id: &str, user_id: &str) -> Value {
    json!({"image": photo_base64(), "request_id": request_id, "user_id": user_id})
}

impl Answer {
    /// Asserts a failure in the documented shape, with these words in its sentence.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str, words: &str) {
        let error = self.body["error"].as_str().expect("an error has a sentence");
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert!(error.contains(words), "{words:?} is not in {error:?}");
        let keys = self.body.as_object().unwrap().keys().map(String::as_str);
        // What became of an image is in some.
        assert_eq!(keys.filter(|key| *key != "verdict").collect::<Vec<_>>(), ["code", "error", "request_id"]);
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) -> &Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        &self.body
    }
}
