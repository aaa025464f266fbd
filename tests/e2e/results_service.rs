//! results-service's routes, each answer and status as documented.

use crate::fixture::{Convoy, unique};
use crate::rest::{self, Answer, assert_keys, assert_recent, with_segment};
use serde_json::{Value, json};

fn prediction(request_id: &str, user_id: &str) -> Value {
    json!({
        "request_id": request_id,
        "user_id": user_id,
        "predictions": [{"class_name": "bus", "confidence": 0.97}],
        "model_version": "1",
        "inference_time_ms": 12.5,
    })
}

async fn store(body: &Value) -> Answer {
    rest::post_json(Convoy::shared().results("/predictions"), body).await
}

async fn show(request_id: &str) -> Answer {
    rest::get(with_segment(Convoy::shared().results("/predictions"), request_id)).await
}

fn of_user(user_id: &str) -> String {
    with_segment(Convoy::shared().results("/predictions/user"), user_id)
}

#[tokio::test]
async fn health_is_as_documented() {
    let body = rest::get(Convoy::shared().results("/health")).await.json(200);
    assert_keys(&body, &["status", "service", "timestamp"]);
    assert_eq!((&body["status"], &body["service"]), (&json!("healthy"), &json!("results-service")));
    assert_recent(&body["timestamp"]);
    assert_eq!(rest::get(Convoy::shared().results("/ready")).await.json(200)["ready"], true);
}

#[tokio::test]
async fn a_prediction_is_stored_shown_and_not_stored_twice() {
    let (id, user) = (unique("r"), unique("u"));
    let body = prediction(&id, &user);
    let created = store(&body).await.json(201);
    assert_keys(&created, &["status", "request_id", "timestamp"]);
    assert_eq!((&created["status"], &created["request_id"]), (&json!("success"), &json!(id)));

    let shown = show(&id).await.json(200);
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&shown[name], value, "{name}");
    }
    assert_recent(&shown["timestamp"]);
    assert_eq!(created["timestamp"], shown["timestamp"]);

    let mut other = prediction(&id, &unique("stranger"));
    other["predictions"] = json!("another");
    let refused = store(&other).await;
    refused.error(409, "already_exists");
    assert!(!refused.text.contains(&user) && !refused.text.contains("bus"), "{}", refused.text);
    assert_eq!(show(&id).await.json(200), shown);
}

#[tokio::test]
async fn each_missing_field_is_named() {
    for field in ["request_id", "user_id", "predictions", "model_version", "inference_time_ms"] {
        let mut body = prediction(&unique("r"), "u");
        body.as_object_mut().unwrap().remove(field);
        let sentence = store(&body).await.error(400, "invalid_input");
        assert_eq!(sentence, format!("Missing field: {field}"));
    }
}

#[tokio::test]
async fn the_same_request_gets_the_stored_record_and_another_gets_409() {
    let (id, user) = (unique("r"), unique("u"));
    let mut body = prediction(&id, &user);
    body["content_sha256"] = json!("a".repeat(64));
    body["model_name"] = json!("vehicle-detector");
    store(&body).await.json(201);
    let shown = show(&id).await.json(200);
    assert_eq!(shown["model_name"], "vehicle-detector");

    body["predictions"] = json!("a retry that came out differently");
    assert_eq!(store(&body).await.json(200), shown);
    for (field, value) in [("content_sha256", "b".repeat(64)), ("user_id", unique("stranger"))] {
        let mut other = body.clone();
        other[field] = json!(value);
        store(&other).await.error(409, "already_exists");
    }
    body.as_object_mut().unwrap().remove("content_sha256");
    store(&body).await.error(409, "already_exists");
}

#[tokio::test]
async fn predictions_come_back_byte_for_byte() {
    let odd = r#"{"z": 1.0, "a": [ 123456789012345678901234567890 ,1e400,0.10], "z":"\u00fc\/ü"}"#;
    let (id, user) = (unique("r"), unique("u"));
    let body = format!(
        r#"{{"request_id":"{id}","user_id":"{user}","predictions":{odd},"model_version":"1","inference_time_ms":1}}"#
    );
    let url = Convoy::shared().results("/predictions");
    rest::send(reqwest::Method::POST, url, Some("application/json"), body).await.json(201);
    for text in [show(&id).await.text, rest::get(of_user(&user)).await.text] {
        assert!(text.contains(odd), "{text}");
    }
}

#[tokio::test]
async fn a_users_predictions_are_listed_newest_first_and_erased() {
    // Characters that mean something in paths and queries must come through.
    let user = unique("ü/ s?e&r#%2F");
    let ids = [unique("r"), unique("r"), unique("r")];
    for id in &ids {
        store(&prediction(id, &user)).await.json(201);
    }
    let stranger = unique("r");
    store(&prediction(&stranger, &unique("u"))).await.json(201);

    let listed = rest::get(of_user(&user)).await.json(200);
    assert_keys(&listed, &["user_id", "count", "predictions"]);
    assert_eq!((&listed["user_id"], &listed["count"]), (&json!(user), &json!(3)));
    let order: Vec<_> =
        listed["predictions"].as_array().unwrap().iter().map(|p| p["request_id"].clone()).collect();
    assert_eq!(order, [&ids[2], &ids[1], &ids[0]].map(|id| json!(id)));

    let erased = rest::delete(of_user(&user)).await.json(200);
    assert_keys(&erased, &["status", "user_id", "deleted_count", "receipt_id", "erased_at"]);
    assert_eq!((&erased["user_id"], &erased["deleted_count"]), (&json!(user), &json!(3)));
    assert_recent(&erased["erased_at"]);
    assert_eq!(
        rest::get(of_user(&user)).await.json(200),
        json!({"user_id": user, "count": 0, "predictions": []})
    );
    show(&ids[0]).await.error(404, "not_found");
    show(&stranger).await.json(200);
    assert_eq!(rest::delete(of_user(&user)).await.json(200)["deleted_count"], 0);
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    show(&unique("nobody")).await.error(404, "not_found");
}

#[tokio::test]
async fn the_operators_face_is_another_address() {
    let admin = Convoy::shared().addresses.admin.unwrap();
    rest::get(format!("http://{admin}/health")).await.json(200);
    rest::get(format!("http://{admin}/predictions/x")).await.error(404, "not_found");
    rest::get(Convoy::shared().results("/stats")).await.error(404, "not_found");
}
