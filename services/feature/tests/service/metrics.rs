//! `GET /metrics`.

use crate::rig::{Rig, json_request, photo_of, request};
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

async fn metrics(rig: &Rig) -> String {
    let response =
        rig.router.clone().oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn images_are_counted_by_their_verdict_and_requests_by_their_route() {
    let rig = Rig::new().await;
    let has = |text: &str, line: &str| {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    };
    let text = metrics(&rig).await;
    for verdict in [
        "accepted",
        "not_an_image",
        "unsupported_format",
        "truncated",
        "too_many_pixels",
        "out_of_memory",
        "out_of_time",
        "trapped",
    ] {
        has(&text, &format!("convoy_sandbox_images_total{{verdict=\"{verdict}\"}} 0"));
    }
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.send(json_request("/preprocess", &photo_of("r2", "u1"))).await.assert_ok();
    rig.send(request("/predict", "image/png", &b"\x89PNG\r\n\x1a\n"[..])).await;
    rig.send(json_request("/preprocess", &json!({"image": "aGVsbG8="}))).await;
    rig.send(request("/preprocess", "text/plain", "")).await;
    let text = metrics(&rig).await;
    for line in [
        "convoy_sandbox_images_total{verdict=\"accepted\"} 2",
        "convoy_sandbox_images_total{verdict=\"truncated\"} 1",
        "convoy_sandbox_images_total{verdict=\"not_an_image\"} 1",
        "convoy_feature_requests_total{route=\"/predict\",status=\"200\"} 1",
        "convoy_feature_requests_total{route=\"/predict\",status=\"400\"} 1",
        "convoy_feature_requests_total{route=\"/preprocess\",status=\"415\"} 1",
        "convoy_feature_request_duration_seconds_count{route=\"/preprocess\"} 3",
    ] {
        has(&text, line);
    }
}
