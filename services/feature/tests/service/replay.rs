//! A request that is sent again.

use crate::rig::{PHOTO, Rig, json_request, photo_base64, photo_of, request};
use http::StatusCode;
use serde_json::{Value, json};
use tonic::Status;

/// Everything of an answer but what this very request cost.
fn lasting(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove("timings_ms").expect("every answer has timings");
    body
}

#[tokio::test]
async fn it_gets_the_same_answer_and_one_stored_prediction() {
    let rig = Rig::new().await;
    let first = rig.predict(&photo_of("r1", "u1")).await;
    first.assert_ok();
    {
        // Whatever became of the model meanwhile.
        let mut model = rig.models.model();
        model.version = "2".to_owned();
        model.fails_with = Some(Status::unavailable("Gone."));
    }
    let second = rig.predict(&photo_of("r1", "u1")).await;
    assert_eq!(lasting(second.assert_ok()), lasting(&first.body));
    assert_eq!(second.body["timings_ms"]["preprocess"], 0.0);
    assert_eq!(second.body["timings_ms"]["inference"], 0.0);
    assert_eq!(rig.models.model().inferences.len(), 1, "the model did not work again");
    let store = rig.results.store();
    assert_eq!((store.records.len(), store.posts), (1, 1));
}

#[tokio::test]
async fn without_a_user_it_is_the_same_request_too() {
    let rig = Rig::new().await;
    let body = json!({"image": photo_base64(), "request_id": "r1"});
    let first = rig.predict(&body).await;
    let second = rig.predict(&body).await;
    assert_eq!(lasting(second.assert_ok()), lasting(first.assert_ok()));
}

#[tokio::test]
async fn two_at_once_get_one_answer() {
    let rig = Rig::new().await;
    // Neither finds the other when it looks first.
    rig.results.store().hides_records = true;
    rig.results.store().tells_timestamp = true;
    let body = photo_of("r1", "u1");
    let (one, other) = tokio::join!(rig.predict(&body), rig.predict(&body));
    assert_eq!(lasting(one.assert_ok()), lasting(other.assert_ok()));
    let store = rig.results.store();
    assert_eq!((store.records.len(), store.posts), (1, 2));
}

#[tokio::test]
async fn the_id_with_anything_else_is_refused_before_a_model_works() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    let mut other_model = photo_of("r1", "u1");
    other_model["model"] = json!("detector");
    let mut longer = PHOTO.to_vec();
    longer.push(0);
    for request in [
        json_request("/predict", &photo_of("r1", "u2")),
        json_request("/predict", &json!({"image": photo_base64(), "request_id": "r1"})),
        json_request("/predict", &other_model),
        request("/predict?request_id=r1&user_id=u1", "image/jpeg", longer),
    ] {
        let answer = rig.send(request).await;
        answer.assert_error(409, "already_exists", "The request_id exists already");
        assert_eq!(answer.body["request_id"], "r1");
    }
    assert_eq!(rig.models.model().inferences.len(), 1);
}

#[tokio::test]
async fn the_store_decides_when_the_id_was_taken_meanwhile() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.results.store().hides_records = true;
    let answer = rig.predict(&photo_of("r1", "u2")).await;
    answer.assert_error(409, "already_exists", "The request_id exists already");
    assert_eq!(rig.models.model().inferences.len(), 2);
}

#[tokio::test]
async fn what_could_not_be_stored_can_be_sent_again() {
    for status in
        [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]
    {
        let rig = Rig::new().await;
        rig.results.store().post_fails_with = Some(status);
        let answer = rig.predict(&photo_of("r1", "u1")).await;
        answer.assert_error(503, "unavailable", "could not be stored: results-service");
        assert_eq!(answer.body["request_id"], "r1");
        rig.results.store().post_fails_with = None;
        rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    }
}

#[tokio::test]
async fn an_answer_of_the_store_that_got_lost_does_no_harm() {
    let rig = Rig::new().await;
    rig.results.store().post_answers_after_storing = Some(StatusCode::BAD_GATEWAY);
    // The client made no ids: those of the failed answer make the repetition the same request.
    let failed = rig.predict(&json!({"image": photo_base64()})).await;
    failed.assert_error(503, "unavailable", "again with the request_id of this answer");
    let again = json!({"image": photo_base64(), "request_id": failed.body["request_id"]});
    rig.predict(&again).await.assert_ok();
    let store = rig.results.store();
    assert_eq!((store.records.len(), store.posts), (1, 1));
}
