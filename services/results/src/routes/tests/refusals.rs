//! Every wrong request gets its status and a sentence, in one shape.

use super::*;
use service_kit::json_error::ErrorBody;

fn error(answer: &Answer) -> ErrorBody {
    serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{error}: {}", answer.text))
}

#[tokio::test]
async fn each_missing_field_is_named() {
    let service = Service::new();
    for field in ["request_id", "user_id", "predictions", "model_version", "inference_time_ms"] {
        let mut body = sample("r1", "u1");
        body.as_object_mut().unwrap().remove(field);
        let answer = service.post(&body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(error(&answer).error, format!("Missing field: {field}"));
        assert_eq!(error(&answer).code, "invalid_input");
        let known = (field != "request_id").then_some("r1");
        assert_eq!(error(&answer).request_id.as_deref(), known);
    }
    // The first in the documented order, whatever else is wrong.
    assert_eq!(error(&service.post("{}").await).error, "Missing field: request_id");
    let answer = service.post(json!({"request_id": 7, "predictions": []})).await;
    assert_eq!(error(&answer).error, "Missing field: user_id");
}

#[tokio::test]
async fn null_is_missing_except_where_any_json_is_wanted() {
    let service = Service::new();
    for field in ["request_id", "user_id", "model_version", "inference_time_ms"] {
        let mut body = sample("r1", "u1");
        body[field] = Value::Null;
        assert_eq!(error(&service.post(&body).await).error, format!("Missing field: {field}"));
    }
    let mut body = sample("r1", "u1");
    for field in ["predictions", "model_name", "content_sha256"] {
        body[field] = Value::Null;
    }
    assert_eq!(service.post(&body).await.status, StatusCode::CREATED);
    assert_eq!(service.call("GET", "/predictions/r1").await.json()["predictions"], Value::Null);
}

#[tokio::test]
async fn wrong_values_are_refused_with_what_is_wanted() {
    let service = Service::new();
    let duration = "inference_time_ms must be a number of milliseconds, finite and not negative.";
    let text = "must be a string of at most 256 bytes without control characters.";
    for (field, value, sentence) in [
        ("request_id", json!(7), "request_id must be a string."),
        ("request_id", json!(""), "request_id is empty."),
        ("request_id", json!(".."), "request_id may not be `.` or `..`."),
        ("user_id", json!({}), "user_id must be a string."),
        ("user_id", json!("a\u{7}"), "user_id has the control character U+0007."),
        ("user_id", json!("x".repeat(257)), "user_id is 257 bytes long; 256 are allowed."),
        ("model_version", json!(1), &format!("model_version {text}")),
        ("model_name", json!(["a"]), &format!("model_name {text}")),
        ("model_name", json!("x".repeat(257)), &format!("model_name {text}")),
        ("inference_time_ms", json!("fast"), duration),
        ("inference_time_ms", json!(-1), duration),
        (
            "received_at",
            json!("noon"),
            "received_at must be a time as RFC 3339 has it, such as 2026-11-23T09:14:55.000123Z.",
        ),
        ("content_sha256", json!("ab"), "content_sha256 must be a SHA-256 as 64 hexadecimal digits."),
        (
            "content_sha256",
            json!("g".repeat(64)),
            "content_sha256 must be a SHA-256 as 64 hexadecimal digits.",
        ),
    ] {
        let mut body = sample("r1", "u1");
        body[field] = value;
        let answer = service.post(&body).await;
        assert_eq!((answer.status, error(&answer).error.as_str()), (StatusCode::BAD_REQUEST, sentence));
    }
    // No f64 holds it; serde_json's own values cannot say it either.
    let endless = sample("r1", "u1").to_string().replace("41.25", "1e999");
    assert_eq!(error(&service.post(endless).await).error, duration);
    assert_eq!(service.store.stats().await.unwrap().predictions, 0);
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let service = Service::new();
    let twice = format!("{{\"user_id\":\"u2\",{}", &sample("r1", "u1").to_string()[1..]);
    for (body, start) in [
        (&b""[..], "The request body is empty"),
        (b"{", "The request body is not valid JSON: EOF"),
        (b"{\"request_id\":\"r1\"} x", "The request body is not valid JSON: trailing characters"),
        (b"{\"request_id\":\xff}", "The request body is not valid JSON: it is not UTF-8 after byte 14"),
        (b"[{}", "The request body is not valid JSON: EOF"),
        (b"\"r1\"", "The request body must be a JSON object, or an array of them."),
        (b"7", "The request body must be a JSON object, or an array of them."),
        (b"null", "The request body must be a JSON object, or an array of them."),
        (twice.as_bytes(), "The request body is not valid JSON: duplicate field"),
    ] {
        let answer = service.send(post_request(body.to_vec())).await;
        let text = String::from_utf8_lossy(body);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{text}");
        assert!(error(&answer).error.starts_with(start), "{text}: {}", answer.text);
    }
}

#[tokio::test]
async fn type_size_method_and_path_are_checked() {
    let service = Service::new();
    let post = |content_type: Option<&str>, body: String| {
        let mut request = http::Request::post("/predictions").body(Body::from(body)).unwrap();
        if let Some(value) = content_type {
            request.headers_mut().insert("content-type", value.parse().unwrap());
        }
        service.send(request)
    };
    let body = sample("r1", "u1").to_string();
    for other in [Some("text/plain"), Some("multipart/form-data; boundary=x"), None] {
        let answer = post(other, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{other:?}");
        assert_eq!(error(&answer).code, "invalid_input");
    }
    assert_eq!(post(None, String::new()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(post(Some("application/json;charset=UTF-8"), body).await.status, StatusCode::CREATED);

    let large = sample("r2", "u1").to_string().replace("bus", &"x".repeat(16 << 20));
    let mut declared = post_request(large.clone());
    declared.headers_mut().insert("content-length", large.len().into());
    for request in [post_request(large), declared] {
        let answer = service.send(request).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(error(&answer).code, "too_large");
        assert!(error(&answer).error.contains("16777216 bytes"), "{}", answer.text);
    }

    for (method, path, allowed) in [
        ("PUT", "/predictions", "POST"),
        ("DELETE", "/predictions/user", "GET,HEAD"),
        ("POST", "/predictions/user/u1", "GET,HEAD,DELETE"),
    ] {
        let answer = service.call(method, path).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(error(&answer).code, "invalid_input");
        assert_eq!(answer.headers["allow"], allowed);
    }
    for (path, status) in [
        ("/nothing", StatusCode::NOT_FOUND),
        ("/predictions/user/a/b", StatusCode::NOT_FOUND),
        ("/predictions/%FF", StatusCode::BAD_REQUEST),
        ("/predictions/%2E%2E", StatusCode::BAD_REQUEST),
        ("/predictions/user/%00", StatusCode::BAD_REQUEST),
    ] {
        let answer = service.call("GET", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!error(&answer).error.is_empty());
    }
}

#[tokio::test]
async fn before_the_database_is_open_and_after_it_was_closed_clients_are_told_to_come_again() {
    let starting = with_fallbacks(public(StoreSlot::default(), Readiness::new()));
    let answer = send(&starting, post_request(sample("r1", "u1").to_string())).await;
    assert_eq!(
        (answer.status, error(&answer).code.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert_eq!(error(&answer).request_id.as_deref(), Some("r1"));
    assert_eq!(answer.headers["retry-after"], "1");

    let service = Service::new();
    service.store.clone().close().await;
    for answer in [service.post(sample("r1", "u1")).await, service.call("GET", "/predictions/user/u1").await]
    {
        assert_eq!(
            (answer.status, error(&answer).code.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        );
    }
}

#[tokio::test]
async fn a_full_queue_is_429_with_retry_after() {
    let folder = tempfile::tempdir().unwrap();
    // A queue without room: what no thread is waiting for is refused.
    let options = StoreOptions { queue_bytes: 0, ..StoreOptions::new(folder.path().join("predictions.db")) };
    let slot = StoreSlot::default();
    slot.set(PredictionStore::open(&options, &Readiness::new()).unwrap());
    let router = with_fallbacks(public(slot, Readiness::new()));
    let answer = send(&router, post_request(sample("r1", "u1").to_string())).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(error(&answer).code, "overloaded");
}
