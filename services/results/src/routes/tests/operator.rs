//! The operator's face, metrics, and the documents of both faces.

use super::*;

async fn admin(service: &Service, method: &str, path: &str, body: &str) -> Answer {
    let request =
        http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    send(&service.admin, request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn receipts_are_listed_newest_first_without_the_users() {
    let service = Service::new();
    for user in ["anna", "bert"] {
        service.post(sample(user, user)).await;
        assert_eq!(service.call("DELETE", &format!("/predictions/user/{user}")).await.status, StatusCode::OK);
    }
    let listed = admin(&service, "GET", "/erasures", "").await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
    assert!(!listed.text.contains("anna") && !listed.text.contains("bert"), "{}", listed.text);
    let (listed, one) = (listed.json(), admin(&service, "GET", "/erasures?limit=1", "").await.json());
    assert_eq!((&listed["count"], &one["count"]), (&json!(2), &json!(2)));
    assert_eq!(listed["erasures"][0], one["erasures"][0]);
    assert_eq!(listed["erasures"][0]["state"], "done");
    assert_eq!(listed["erasures"].as_array().unwrap().len(), 2);
    for query in ["limit=0", "limit=10001", "limit=x", "user=anna"] {
        let refused = admin(&service, "GET", &format!("/erasures?{query}"), "").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(service.call("GET", "/erasures").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_backup_has_a_name_in_the_folder_and_overwrites_nothing() {
    let service = Service::new();
    service.post(sample("r1", "u1")).await;
    let made = admin(&service, "POST", "/backup", r#"{"file_name":"copy.db"}"#).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let copy = service._folder.path().join("copy.db");
    assert_eq!(made.json()["bytes"], copy.metadata().unwrap().len());
    for (body, status) in [
        (r#"{"file_name":"copy.db"}"#, StatusCode::CONFLICT),
        (r#"{"file_name":"../copy2.db"}"#, StatusCode::BAD_REQUEST),
        (r#"{"file_name":""}"#, StatusCode::BAD_REQUEST),
        (r#"["copy2.db"]"#, StatusCode::BAD_REQUEST),
        ("{}", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
    ] {
        let refused = admin(&service, "POST", "/backup", body).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
    }
    let none = Faces::new(StoreSlot::default(), Readiness::new(), None).unwrap().admin();
    let request = post_request(r#"{"file_name":"copy.db"}"#);
    let (mut parts, body) = request.into_parts();
    parts.uri = "/backup".parse().unwrap();
    let refused = send(&with_fallbacks(none), Request::from_parts(parts, body)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text.contains("--backup-dir"), "{}", refused.text);
}

#[tokio::test]
async fn metrics_name_routes_and_never_persons() {
    let service = Service::new();
    service.post(sample("r1", "secret-user")).await;
    service.call("GET", "/predictions/user/secret-user").await;
    service.call("GET", "/no/such/secret-user").await;
    let metrics = service.call("GET", "/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let line = "convoy_results_requests_total{method=\"GET\",route=\"/predictions/user/{user_id}\",status=\"200\"} 1";
    assert!(metrics.text.lines().any(|other| other == line), "{}", metrics.text);
    assert!(metrics.text.contains("wal_bytes") && !metrics.text.contains("secret-user"), "{}", metrics.text);
}

/// Each route that is documented answers, and no reference of the document leads nowhere.
#[tokio::test]
async fn both_documents_are_whole_and_of_openapi_3_1() {
    let service = Service::new();
    for (router, paths) in [
        (
            &service.public,
            &[
                "/predictions",
                "/predictions/{request_id}",
                "/predictions/user/{user_id}",
                "/predictions/user/{user_id}/export",
                "/health",
                "/ready",
            ][..],
        ),
        (&service.admin, &["/predictions", "/stats", "/erasures", "/backup", "/health", "/ready"][..]),
    ] {
        let get = |path: &str| http::Request::get(path.to_owned()).body(Body::empty()).unwrap();
        let document = send(router, get("/openapi.json")).await.json();
        assert_eq!(document["openapi"], "3.1.0");
        for path in paths {
            assert!(document["paths"][path].is_object(), "{path}");
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), paths.len());
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        assert_eq!(send(router, get("/docs")).await.status, StatusCode::OK);
    }
}
