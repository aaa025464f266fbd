//! `POST /predictions` with an array.

use super::*;

#[tokio::test]
async fn each_element_gets_what_it_would_have_got_alone() {
    let service = Service::new();
    let mut known = sample("known", "u1");
    known["content_sha256"] = json!("ab".repeat(32));
    assert_eq!(service.post(&known).await.status, StatusCode::CREATED);
    let mut nameless = sample("x", "u1");
    nameless.as_object_mut().unwrap().remove("user_id");
    let body = json!([sample("r1", "u1"), nameless, known, 7, sample("r1", "u2"), sample("r2", "u2"), []]);
    let answer = service.post(&body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let answer = answer.json();
    assert_eq!(answer["created"], 2);
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 400, 200, 400, 409, 201, 400]);
    let stored = service.call("GET", "/predictions/r1").await.json();
    assert_eq!(results[0], json!({"status": 201, "request_id": "r1", "timestamp": stored["timestamp"]}));
    assert_eq!(
        results[1],
        json!({"status": 400, "error": "Missing field: user_id", "code": "invalid_input", "request_id": "x"})
    );
    assert_eq!((&results[2]["request_id"], &results[2]["user_id"]), (&json!("known"), &json!("u1")));
    assert_eq!(results[3]["request_id"], Value::Null);
    assert_eq!((&results[4]["code"], &results[4]["request_id"]), (&json!("already_exists"), &json!("r1")));
    assert_eq!(stored["user_id"], "u1");
}

#[tokio::test]
async fn an_array_is_one_transaction_and_has_an_end() {
    let service = Service::new();
    assert_eq!(service.post("[]").await.json(), json!({"created": 0, "results": []}));
    let of = |count: usize| (0..count).map(|n| sample(&format!("r{n}"), "u1")).collect::<Vec<_>>();
    let commits = service.store.stats().await.unwrap().commits;
    let full = service.post(json!(of(1_000))).await;
    assert_eq!((full.status, &full.json()["created"]), (StatusCode::OK, &json!(1_000)));
    assert_eq!(service.store.stats().await.unwrap().commits, commits + 1);
    let beyond = service.post(json!(of(1_001))).await;
    assert_eq!(beyond.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(beyond.json()["code"], "too_large");
}

#[tokio::test]
async fn an_array_that_the_database_does_not_take_is_one_error() {
    let service = Service::new();
    service.store.clone().close().await;
    let answer = service.post(json!([sample("r1", "u1")])).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
