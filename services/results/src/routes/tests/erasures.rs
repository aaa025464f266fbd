//! `DELETE /predictions/user/{user_id}` and what is on its way meanwhile.

use super::*;
use crate::store::{Erasure, pause};

#[tokio::test]
async fn an_erasure_has_a_receipt() {
    let service = Service::new();
    service.post(sample("r1", "u1")).await;
    let erased = service.call("DELETE", "/predictions/user/u1").await.json();
    let (receipts, total) = service.store.receipts(10);
    assert_eq!(total, 1);
    assert_eq!(erased["receipt_id"], json!(receipts[0].receipt_id));
    assert_eq!(erased["erased_at"], json!(receipts[0].completed_at));
    assert!(erased["erased_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let again = service.call("DELETE", "/predictions/user/u1").await.json();
    assert_eq!(again["deleted_count"], 0);
    assert_ne!(again["receipt_id"], erased["receipt_id"]);
}

#[tokio::test]
async fn what_was_received_before_the_erasure_is_refused_as_erased() {
    let service = Service::new();
    let received = |id: &str, at: String| {
        let mut body = sample(id, "u1");
        body["received_at"] = json!(at);
        body
    };
    let before = service.store.now().to_string();
    service.call("DELETE", "/predictions/user/u1").await;
    let refused = service.post(received("r1", before.clone())).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!((&refused.json()["code"], &refused.json()["request_id"]), (&json!("erased"), &json!("r1")));
    let many =
        service.post(json!([received("r1", before), received("r2", service.store.now().to_string())])).await;
    let many = many.json();
    assert_eq!((&many["results"][0]["code"], &many["results"][1]["status"]), (&json!("erased"), &json!(201)));
    assert_eq!(service.post(sample("r3", "u1")).await.status, StatusCode::CREATED);
    // A time to come counts as now.
    let later = service.post(received("r4", "2999-01-01T00:00:00Z".to_owned())).await;
    assert_eq!(later.status, StatusCode::CREATED);
    service.call("DELETE", "/predictions/user/u1").await;
    assert_eq!(service.call("GET", "/predictions/r4").await.status, StatusCode::NOT_FOUND);
}

/// A request of which results-service has the head and not yet the body was received before the erasure, too.
#[tokio::test]
async fn a_body_that_was_still_coming_is_refused_as_erased() {
    let service = Service::new();
    let (send_body, body) = tokio::sync::oneshot::channel::<String>();
    let body = Body::from_stream(futures_util::stream::once(body));
    let router = service.public.clone();
    let posted = tokio::spawn(async move { super::send(&router, post_request(body)).await });
    // The body is waited for once the head has been looked at.
    tokio::task::yield_now().await;
    service.call("DELETE", "/predictions/user/u1").await;
    send_body.send(sample("r1", "u1").to_string()).unwrap();
    let refused = posted.await.unwrap();
    assert_eq!(refused.json()["code"], "erased", "{}", refused.text);
}

#[tokio::test]
async fn an_erasure_that_takes_long_is_pending_with_its_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.db");
    let options = StoreOptions { erasure_wait: std::time::Duration::ZERO, ..StoreOptions::new(&path) };
    let slot = StoreSlot::default();
    let store = PredictionStore::open(&options, &Readiness::new()).unwrap();
    slot.set(store.clone());
    let router = with_fallbacks(public(slot, Readiness::new()));
    let delete = || {
        let request = http::Request::delete("/predictions/user/u1").body(Body::empty()).unwrap();
        super::send(&router, request)
    };
    let paused = pause(&store);
    let pending = delete().await;
    drop(paused);
    assert_eq!(pending.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(pending.headers["retry-after"], "1");
    assert_eq!(
        (&pending.json()["code"], &pending.json()["status"]),
        (&json!("unavailable"), &json!("pending"))
    );
    // The work goes on; closing waits for it.
    store.close().await;
    let store = PredictionStore::open(&StoreOptions::new(&path), &Readiness::new()).unwrap();
    assert!(store.receipts(9).0.iter().all(|receipt| receipt.completed_at.is_some()));
    assert!(matches!(store.erase_user("u1".to_owned()).await, Ok(Erasure::Done(_))));
}
