//! A user with more predictions than fit into one page.

use super::*;
use futures_util::future::join_all;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_listing_is_whole_in_order_and_counted() {
    let service = Service::new();
    // In groups that the queue can hold; 1,300 rows are three pages.
    for group in 0..13 {
        let posts =
            (0..100).map(|number| service.post(sample(&format!("r{:04}", group * 100 + number), "u1")));
        for created in join_all(posts).await {
            assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
        }
    }
    service.post(sample("other", "u2")).await;
    let listed = service.call("GET", "/predictions/user/u1").await;
    assert_eq!(listed.headers["content-type"], "application/json");
    let listed = listed.json();
    assert_eq!(listed["count"], 1300);
    let rows = listed["predictions"].as_array().unwrap();
    assert_eq!(rows.len(), 1300);
    let ids: std::collections::BTreeSet<_> = rows.iter().map(|p| p["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1300, "none twice");
    assert!(rows.is_sorted_by(|a, b| a["timestamp"].as_str() >= b["timestamp"].as_str()));
}

#[tokio::test]
async fn a_user_without_predictions_has_an_empty_list() {
    let service = Service::new();
    let listed = service.call("GET", "/predictions/user/nobody").await;
    assert_eq!(listed.status, StatusCode::OK);
    assert_eq!(listed.json(), json!({"user_id": "nobody", "count": 0, "predictions": []}));
}

#[tokio::test]
async fn a_listing_that_cannot_go_on_breaks_off() {
    let service = Service::new();
    for number in 0..600 {
        service.post(sample(&format!("r{number}"), "u1")).await;
    }
    let request = http::Request::get("/predictions/user/u1").body(Body::empty()).unwrap();
    let response = service.public.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    service.store.clone().close().await;
    assert!(response.into_body().collect().await.is_err());
}
