#![allow(clippy::unwrap_used)]

mod arrays;
mod byte_for_byte;
mod erasures;
mod listing;
mod operator;
mod refusals;

use super::*;
use crate::store::StoreOptions;
use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use service_kit::http_server::with_fallbacks;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// The service over a new database, called without a port.
struct Service {
    public: Router,
    admin: Router,
    store: PredictionStore,
    _folder: TempDir,
}

/// The service's own face over `store`.
fn public(store: StoreSlot, readiness: Readiness) -> Router {
    Faces::new(store, readiness, None).unwrap().public()
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Service {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(folder.path().join("predictions.db"));
        let readiness = Readiness::new();
        let store = PredictionStore::open(&options, &readiness).unwrap();
        let slot = StoreSlot::default();
        slot.set(store.clone());
        let faces = Faces::new(slot, readiness, Some(folder.path().to_owned())).unwrap();
        let (public, admin) = (with_fallbacks(faces.public()), with_fallbacks(faces.admin()));
        Self { public, admin, store, _folder: folder }
    }

    async fn send(&self, request: Request) -> Answer {
        send(&self.public, request).await
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(http::Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, body: impl ToString) -> Answer {
        self.send(post_request(body.to_string())).await
    }
}

async fn send(router: &Router, request: Request) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
}

fn post_request(body: impl Into<Body>) -> Request {
    http::Request::post("/predictions").header("content-type", "application/json").body(body.into()).unwrap()
}

fn sample(request_id: &str, user_id: &str) -> Value {
    json!({
        "request_id": request_id,
        "user_id": user_id,
        "predictions": [{"class_name": "bus", "confidence": 0.93}],
        "model_version": "1",
        "inference_time_ms": 41.25,
    })
}

/// An id as a client puts it into a path: everything but letters and digits as `%XX`.
fn encoded(id: &str) -> String {
    id.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[tokio::test]
async fn a_prediction_is_stored_read_listed_and_erased() {
    let service = Service::new();
    let created = service.post(sample("r1", "u1")).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let read = service.call("GET", "/predictions/r1").await;
    assert_eq!(read.status, StatusCode::OK);
    let timestamp = &read.json()["timestamp"];
    assert_eq!(created.json(), json!({"status": "success", "request_id": "r1", "timestamp": timestamp}));
    let mut expected = sample("r1", "u1");
    expected["model_name"] = Value::Null;
    expected["content_sha256"] = Value::Null;
    expected["timestamp"] = read.json()["timestamp"].clone();
    assert_eq!(read.json(), expected);
    let timestamp = expected["timestamp"].as_str().unwrap().to_owned();
    assert!(timestamp.ends_with('Z') && timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");

    let listed = service.call("GET", "/predictions/user/u1").await;
    assert_eq!(listed.json(), json!({"user_id": "u1", "count": 1, "predictions": [expected]}));

    let erased = service.call("DELETE", "/predictions/user/u1").await;
    assert_eq!(erased.status, StatusCode::OK);
    let body = erased.json();
    assert_eq!((&body["status"], &body["user_id"]), (&json!("success"), &json!("u1")));
    assert_eq!(body["deleted_count"], 1);
    let gone = service.call("GET", "/predictions/r1").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(gone.json()["code"], "not_found");
    assert_eq!(gone.json()["request_id"], "r1");
}

#[tokio::test]
async fn ids_of_any_kind_find_their_way() {
    let service = Service::new();
    for id in ["a/b?c#d%", "ユーザー", "user", "user/x", "a b+c", "%2F", "...", "🚌", "..\\", "{request_id}"]
    {
        let created = service.post(sample(id, id)).await;
        assert_eq!(created.status, StatusCode::CREATED, "{id}: {}", created.text);
        let read = service.call("GET", &format!("/predictions/{}", encoded(id))).await;
        assert_eq!((read.status, &read.json()["request_id"]), (StatusCode::OK, &json!(id)));
        let listed = service.call("GET", &format!("/predictions/user/{}", encoded(id))).await;
        assert_eq!(listed.json()["user_id"], json!(id));
        assert_eq!(listed.json()["predictions"][0]["request_id"], json!(id));
    }
    for id in ["a/b?c#d%", "user"] {
        let erased = service.call("DELETE", &format!("/predictions/user/{}", encoded(id))).await;
        assert_eq!((&erased.json()["user_id"], &erased.json()["deleted_count"]), (&json!(id), &json!(1)));
    }
}

#[tokio::test]
async fn a_repeated_request_gets_its_record_and_any_other_only_a_conflict() {
    let service = Service::new();
    let mut request = sample("r1", "u1");
    request["content_sha256"] = json!("AB".repeat(32));
    request["model_name"] = json!("vehicle-detector");
    assert_eq!(service.post(&request).await.status, StatusCode::CREATED);

    // Upper or lower case, it is the same hash.
    request["content_sha256"] = json!("ab".repeat(32));
    let repeated = service.post(&request).await;
    assert_eq!(repeated.status, StatusCode::OK);
    let read = service.call("GET", "/predictions/r1").await;
    assert_eq!(repeated.text, read.text);
    assert_eq!(repeated.json()["model_name"], "vehicle-detector");

    let mut other_hash = request.clone();
    other_hash["content_sha256"] = json!("cd".repeat(32));
    let mut other_user = request.clone();
    other_user["user_id"] = json!("u2");
    for other in [other_hash, other_user, sample("r1", "u1")] {
        let refused = service.post(&other).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{other}");
        let body = refused.json();
        assert_eq!((&body["code"], &body["request_id"]), (&json!("already_exists"), &json!("r1")));
        for secret in ["bus", "vehicle-detector", &"ab".repeat(32)] {
            assert!(!refused.text.contains(secret), "{}", refused.text);
        }
    }
}

#[tokio::test]
async fn the_operator_sees_counts_and_the_public_does_not() {
    let service = Service::new();
    for (request, user) in [("r1", "u1"), ("r2", "u1"), ("r3", "u2")] {
        service.post(sample(request, user)).await;
    }
    let stats = send(&service.admin, http::Request::get("/stats").body(Body::empty()).unwrap()).await;
    assert_eq!(stats.status, StatusCode::OK);
    assert_eq!((&stats.json()["predictions"], &stats.json()["users"]), (&json!(3), &json!(2)));
    assert_eq!(service.call("GET", "/stats").await.status, StatusCode::NOT_FOUND);
    for path in ["/health", "/ready"] {
        let answer = send(&service.admin, http::Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, &answer.json()["service"]), (StatusCode::OK, &json!(SERVICE)));
        assert_eq!(service.call("GET", path).await.status, StatusCode::OK);
    }
}
