//! `GET /openapi.json` and `GET /docs`: what a REST face can do, for programs and for persons.
//!
//! The page draws the document in the browser with a script of its own. It loads nothing from other hosts, so it works
//! without the internet, and its Content-Security-Policy holds it to that.

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

const PAGE: &str = include_str!("api_docs/page.html");
const SCRIPT: &str = include_str!("api_docs/page.js");
const STYLE: &str = include_str!("api_docs/page.css");

/// Scripts, styles and calls of this origin, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes that show `document`, an OpenAPI document as JSON.
pub fn routes<S: Clone + Send + Sync + 'static>(document: String) -> Router<S> {
    let document = Bytes::from(document);
    Router::new()
        .route("/openapi.json", get(move || async move { file("application/json", document) }))
        .route("/docs", get(|| async { file("text/html; charset=utf-8", PAGE) }))
        .route("/docs/page.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/docs/page.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
}

fn file(content_type: &'static str, content: impl Into<Bytes>) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Another version of the service may answer the next time.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn fetch(path: &str) -> (Response<()>, String) {
        let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
        let response =
            routes::<()>("{\"openapi\":\"3.1.0\"}".to_owned()).oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8(bytes.into()).expect("text"))
    }

    #[tokio::test]
    async fn the_document_and_the_page_are_served_with_what_the_page_loads() {
        let (document, text) = fetch("/openapi.json").await;
        assert_eq!((document.status(), text.as_str()), (StatusCode::OK, "{\"openapi\":\"3.1.0\"}"));
        assert_eq!(document.headers()[CONTENT_TYPE], "application/json");
        let (page, text) = fetch("/docs").await;
        assert_eq!(page.headers()[CONTENT_SECURITY_POLICY], POLICY);
        for (attribute, path) in [("src", "docs/page.js"), ("href", "docs/page.css")] {
            assert!(text.contains(&format!("{attribute}=\"{path}\"")), "{text}");
            assert_eq!(fetch(&format!("/{path}")).await.0.status(), StatusCode::OK);
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(!text.contains("//cdn") && !text.contains("https:") && !text.contains("http:"), "{text}");
            assert!(!text.contains("innerHTML"), "texts of the document are no markup");
        }
    }
}
