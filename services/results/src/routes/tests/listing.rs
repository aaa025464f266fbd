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

/// As [`Service::post`], in one transaction.
async fn post_many(service: &Service, predictions: Vec<Value>) {
    let answer = service.post(Value::from(predictions)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

fn ids(listing: &Value) -> Vec<&str> {
    listing["predictions"].as_array().unwrap().iter().map(|p| p["request_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_limit_and_its_cursor_take_a_client_through_all_of_it() {
    let service = Service::new();
    post_many(&service, (0..7).map(|n| sample(&format!("r{n}"), "u1")).collect()).await;
    let (mut path, mut seen) = ("/predictions/user/u1?limit=3".to_owned(), Vec::new());
    loop {
        let page = service.call("GET", &path).await.json();
        assert_eq!(page["count"], ids(&page).len());
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        // What arrives meanwhile is newer than the cursor and moves nothing.
        service.post(sample(&format!("new-{}", seen.len()), "u1")).await;
        let Some(cursor) = page.get("next_cursor") else { break };
        path = format!("/predictions/user/u1?limit=3&cursor={}", cursor.as_str().unwrap());
    }
    assert_eq!(seen, ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]);
    // Nothing is left behind a limit that is just met.
    let all = service.call("GET", "/predictions/user/u1?limit=10").await.json();
    assert_eq!((&all["count"], all.get("next_cursor")), (&json!(10), None));
}

#[tokio::test]
async fn filters_hold_for_a_user_and_for_the_operator() {
    let service = Service::new();
    let mut car = sample("r2", "u1");
    car["predictions"] = json!([{"class": "car"}]);
    car["model_name"] = json!("m");
    post_many(&service, vec![sample("r1", "u1"), car, sample("r3", "u2")]).await;
    let listed = |path: &str| http::Request::get(path.to_owned()).body(Body::empty()).unwrap();
    for (path, expected) in [
        ("/predictions/user/u1?class=bus", vec!["r1"]),
        ("/predictions/user/u1?class=car&model=m", vec!["r2"]),
        ("/predictions/user/u1?model=other", vec![]),
        ("/predictions/user/u1?since=2000-01-01&until=2001-01-01T00:00:00Z", vec![]),
        ("/predictions/user/u1?since=2000-01-01", vec!["r2", "r1"]),
    ] {
        assert_eq!(ids(&service.call("GET", path).await.json()), expected, "{path}");
    }
    for (path, expected) in [
        ("/predictions", vec!["r3", "r2", "r1"]),
        ("/predictions?class=bus", vec!["r3", "r1"]),
        ("/predictions?limit=1", vec!["r3"]),
    ] {
        let answer = send(&service.admin, listed(path)).await.json();
        assert_eq!(ids(&answer), expected, "{path}");
        assert!(answer.get("user_id").is_none());
    }
    let public = service.call("GET", "/predictions").await;
    assert_eq!(public.status, StatusCode::METHOD_NOT_ALLOWED, "not on the service's own face");
    for path in
        ["/predictions/user/u1?limit=0", "/predictions/user/u1?nothing=1", "/predictions/user/u1?since=x"]
    {
        let refused = service.call("GET", path).await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_input"))
        );
    }
}

#[tokio::test]
async fn an_export_has_a_line_for_each_prediction_whatever_its_json() {
    let service = Service::new();
    let odd = "[\n {\"class_name\":\r\n\t\"b\\nus\"} ]";
    let body = format!(
        "{{\"request_id\":\"odd\",\"user_id\":\"u1\",\"predictions\":{odd},\"model_version\":\"1\",\"inference_time_ms\":1}}"
    );
    assert_eq!(service.post(body).await.status, StatusCode::CREATED);
    post_many(&service, (0..600).map(|n| sample(&format!("r{n}"), "u1")).collect()).await;
    service.post(sample("other", "u2")).await;
    let export = service.call("GET", "/predictions/user/u1/export").await;
    assert_eq!(export.status, StatusCode::OK);
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    assert_eq!(export.headers["content-disposition"], "attachment; filename=\"predictions.ndjson\"");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 601);
    assert!(export.text.ends_with('\n'));
    for line in &lines {
        let shown =
            service.call("GET", &format!("/predictions/{}", line["request_id"].as_str().unwrap())).await;
        assert_eq!(*line, shown.json());
    }
    let nobody = service.call("GET", "/predictions/user/nobody/export").await;
    assert_eq!((nobody.status, nobody.text.as_str()), (StatusCode::OK, ""));
}

/// A client that stops reading holds no snapshot: an erasure is done meanwhile, and the rest of the stream is empty.
#[tokio::test]
async fn a_reader_that_stopped_half_way_holds_up_nothing() {
    let service = Service::new();
    for part in 0..3 {
        post_many(&service, (0..1000).map(|n| sample(&format!("r{part}-{n}"), "u1")).collect()).await;
    }
    let request = http::Request::get("/predictions/user/u1").body(Body::empty()).unwrap();
    let mut body = service.public.clone().oneshot(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"user_id\":\"u1\",\"predictions\":[{"));
    let erased = service.call("DELETE", "/predictions/user/u1").await;
    assert_eq!((erased.status, &erased.json()["deleted_count"]), (StatusCode::OK, &json!(3000)));
    let rest = body.collect().await.unwrap().to_bytes();
    let whole: Value = serde_json::from_slice(&[&first[..], &rest].concat()).unwrap();
    let count = whole["count"].as_u64().unwrap();
    assert!(count < 3000 && count == ids(&whole).len() as u64, "{count}");
}
