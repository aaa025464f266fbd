//! A REST client that says what it got when it got something else.

use crate::photo::Detection;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeSet;

/// Status, headers' content type and body of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let content_type =
            response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        Self {
            status: response.status(),
            content_type: content_type.unwrap_or_default(),
            text: response.text().await.unwrap(),
        }
    }

    /// The body as JSON; the status must be `status`.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.content_type.starts_with("application/json"), "{}", self.content_type);
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The sentence of a failed answer in the documented error shape.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        let mut body = self.json(status);
        // What became of an image is in some.
        if let Some(verdict) = body.as_object_mut().and_then(|body| body.remove("verdict")) {
            assert!(verdict.as_str().is_some_and(|verdict| !verdict.is_empty()), "{verdict}");
        }
        assert_keys(&body, &["error", "code", "request_id"]);
        assert_eq!(body["code"], code, "{body}");
        assert!(body["request_id"].is_string() || body["request_id"].is_null(), "{body}");
        let sentence = body["error"].as_str().unwrap();
        assert!(!sentence.is_empty(), "{body}");
        sentence.to_owned()
    }
}

/// A client that keeps to the address it is given, whatever proxy the environment names.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn get(url: String) -> Answer {
    Answer::of(client().get(url).send().await.unwrap()).await
}

pub(crate) async fn delete(url: String) -> Answer {
    Answer::of(client().delete(url).send().await.unwrap()).await
}

pub(crate) async fn post_json(url: String, body: &Value) -> Answer {
    Answer::of(client().post(url).json(body).send().await.unwrap()).await
}

/// Any request with a body of `content_type`, or none.
pub(crate) async fn send(
    method: Method,
    url: String,
    content_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let mut request = client().request(method, url).body(body);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// `url` with percent-encoded parameters.
pub(crate) fn with_query(url: String, parameters: &[(&str, &str)]) -> String {
    reqwest::Url::parse_with_params(&url, parameters).unwrap().into()
}

/// `url` with one more, percent-encoded, path segment.
pub(crate) fn with_segment(url: String, segment: &str) -> String {
    let mut url = reqwest::Url::parse(&url).unwrap();
    url.path_segments_mut().unwrap().push(segment);
    url.into()
}

/// Fails unless `value` is an object with exactly these keys.
#[track_caller]
pub(crate) fn assert_keys(value: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect::<BTreeSet<_>>(), "{value}");
}

/// Fails unless `value` is an instant of the last minutes as RFC 3339 in UTC.
#[track_caller]
pub(crate) fn assert_recent(value: &Value) {
    let text = value.as_str().unwrap();
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    let age = jiff::Timestamp::now().duration_since(text.parse().unwrap());
    assert!((0..600).contains(&age.as_secs()), "{text} is {age} old");
}

pub(crate) fn detections(body: &Value) -> Vec<Detection> {
    serde_json::from_value(body["detections"].clone()).unwrap()
}
