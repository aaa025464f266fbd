//! Peers that refuse, hang, or are not there.

use crate::fakes::FakeModels;
use crate::rig::{Rig, config, json_request, photo_base64, photo_of, sandbox, send};
use http::StatusCode;
use serde_json::json;
use service_kit::{ErrorCode, Readiness};
use std::time::{Duration, Instant};
use tonic::Status;

/// An address where nobody listens: the port was free a moment ago.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn what_model_serving_says_becomes_the_answer() {
    let rig = Rig::new().await;
    for (status, http, code, words) in [
        (Status::invalid_argument("The tensor is wrong."), 400, "invalid_input", "The tensor is wrong."),
        (Status::not_found("There is no such model."), 404, "not_found", "There is no such model."),
        (Status::resource_exhausted("The queue is full."), 429, "overloaded", "The queue is full."),
        (Status::unavailable("Loading."), 503, "unavailable", "model-serving is not available (Loading)"),
        (Status::deadline_exceeded("Late."), 504, "deadline_exceeded", "waited for model-serving"),
        (Status::internal("Secret detail."), 500, "internal", "its log says why"),
        (Status::unimplemented("Secret detail."), 500, "internal", "its log says why"),
    ] {
        rig.models.model().fails_with = Some(status);
        let answer = rig.predict(&photo_of("r1", "u1")).await;
        answer.assert_error(http, code, words);
        assert_eq!(answer.body["request_id"], "r1");
        assert!(!answer.body["error"].as_str().unwrap().contains("Secret"));
    }
    assert_eq!(rig.results.store().posts, 0, "no failure is stored");
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    let rig = Rig::new().await;
    let full = |delay| service_kit::status(ErrorCode::Overloaded, "Full.", delay);
    for (delay, header) in [(None, "1"), (Some(Duration::from_millis(2_500)), "3")] {
        rig.models.model().fails_with = Some(full(delay));
        let answer = rig.predict(&photo_of("r1", "u1")).await;
        answer.assert_error(429, "overloaded", "Full.");
        assert_eq!(answer.headers["retry-after"], header);
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let rig = Rig::new().await;
    let mut body = photo_of("r1", "u1");
    body["model"] = json!("cats");
    rig.predict(&body).await.assert_error(404, "not_found", "There is no model `cats`.");
}

#[tokio::test]
async fn a_model_that_hangs_is_given_up_and_its_call_ended() {
    let rig = Rig::with(|config| config.request_timeout = Duration::from_secs(2)).await;
    rig.models.model().hangs = true;
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(504, "deadline_exceeded", "waited for model-serving");
    rig.models.until_hanging(0).await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_the_call() {
    let rig = Rig::new().await;
    rig.models.model().hangs = true;
    let router = rig.router.clone();
    let request = json_request("/predict", &photo_of("r1", "u1"));
    let caller = tokio::spawn(async move { send(&router, request).await });
    rig.models.until_hanging(1).await;
    caller.abort();
    rig.models.until_hanging(0).await;
    assert_eq!(rig.results.store().posts, 0);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let rig = Rig::with(|config| config.request_timeout = Duration::from_secs(2)).await;
    rig.results.store().hangs = true;
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(503, "unavailable", "results-service is not available (it did not answer in time)");
    let answer = rig.predict(&json!({"image": photo_base64()})).await;
    answer.assert_error(503, "unavailable", "could not be stored");
}

#[tokio::test]
async fn peers_that_are_not_there_are_named() {
    let rig = Rig::new().await;
    let readiness = Readiness::new;
    let no_models = config(&nobody().await, &rig.results.url());
    let router = feature_service::router(&no_models, sandbox(), readiness()).unwrap();
    let answer = send(&router, json_request("/predict", &photo_of("r1", "u1"))).await;
    answer.assert_error(503, "unavailable", "model-serving is not available");

    let no_results = config(&rig.models.url(), &nobody().await);
    let router = feature_service::router(&no_results, sandbox(), readiness()).unwrap();
    let answer = send(&router, json_request("/predict", &photo_of("r1", "u1"))).await;
    answer.assert_error(503, "unavailable", "results-service is not available");
    assert!(rig.models.model().inferences.is_empty(), "nothing was predicted that cannot be stored");
    let answer = send(&router, json_request("/predict", &json!({"image": photo_base64()}))).await;
    answer.assert_error(503, "unavailable", "could not be stored");

    // Preprocessing needs neither.
    send(&router, json_request("/preprocess", &json!({"image": photo_base64()}))).await.assert_ok();
}

#[tokio::test]
async fn a_replica_that_is_not_available_is_not_asked_first() {
    let loading = FakeModels::start().await;
    loading.model().fails_with = Some(Status::unavailable("Loading."));
    let rig = Rig::with(|config| config.model_serving_url += &format!(",{}", loading.url())).await;
    let started = Instant::now();
    for _ in 0..6 {
        rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    }
    // After a second it may be asked again.
    if started.elapsed() < Duration::from_secs(1) {
        assert!(
            loading.model().inferences.len() <= 1,
            "{} calls went to it",
            loading.model().inferences.len()
        );
    }
}

#[tokio::test]
async fn a_store_that_does_not_know_the_contract_is_our_fault() {
    let rig = Rig::new().await;
    rig.results.store().post_fails_with = Some(StatusCode::BAD_REQUEST);
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(500, "internal", "its log says why");
    rig.results.store().get_fails_with = Some(StatusCode::MOVED_PERMANENTLY);
    rig.predict(&photo_of("r1", "u1")).await.assert_error(500, "internal", "its log says why");
}
