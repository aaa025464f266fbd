//! The client of feature-service's `POST /predict`.

use crate::exit::Failure;
use crate::health::innermost;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value};
use service_kit::json_error::ErrorBody;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How often a photo is sent at most.
const ATTEMPTS: u32 = 5;
/// The wait before the second attempt where the server names none; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Detection {
    /// The model's name for it.
    pub class_name: String,
    /// 0..1.
    pub confidence: f32,
    /// Where it is.
    pub bbox: BoundingBox,
}

/// A box in fractions (0..1) of the upright photo.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct BoundingBox {
    /// Left edge.
    pub x_min: f32,
    /// Upper edge.
    pub y_min: f32,
    /// Right edge.
    pub x_max: f32,
    /// Lower edge.
    pub y_max: f32,
}

impl BoundingBox {
    /// The edges in pixels of a photo of `width` by `height`: x_min, y_min, x_max, y_max.
    pub(super) fn in_pixels(self, width: u32, height: u32) -> [u32; 4] {
        let scale = |fraction: f32, length: u32| {
            let pixels = (f64::from(fraction) * f64::from(length)).round();
            // Casts of floats saturate; a NaN becomes 0.
            (pixels as u32).min(length)
        };
        [
            scale(self.x_min, width),
            scale(self.y_min, height),
            scale(self.x_max, width),
            scale(self.y_max, height),
        ]
    }
}

/// The server's answer to one photo.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// All of it.
    pub fields: Map<String, Value>,
    /// Its `detections`, best first.
    pub detections: Vec<Detection>,
}

/// Sends photos to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    predict: Url,
    server: String,
    user: Option<String>,
    model: Option<String>,
    timeout: Duration,
}

/// Why an attempt got no answer.
enum Refused {
    /// Another attempt can help, after the given time where the server named one.
    ForNow(String, Option<Duration>),
    ForGood(String),
}

impl Client {
    /// A client of the feature-service at `server`.
    pub(super) fn new(
        server: &str,
        user: Option<String>,
        model: Option<String>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let usage = |what: String| {
            Failure::Usage(format!("--server (CONVOY_SERVER) is {server}, {what}: write http://HOST:PORT."))
        };
        let mut predict = Url::parse(server).map_err(|error| usage(format!("which is no URL ({error})")))?;
        if predict.scheme() != "http" {
            return Err(usage("which is not an http:// URL".to_owned()));
        }
        if let Some(user) = &user {
            service_kit::identifier::validate(user)
                .map_err(|error| Failure::Usage(format!("--user (CONVOY_USER) {error}.")))?;
        }
        predict.set_path(&format!("{}/predict", predict.path().trim_end_matches('/')));
        let mut http = reqwest::Client::builder();
        // A proxy that the environment names knows nothing of this machine's own address.
        if predict.host_str().is_some_and(is_this_machine) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| Failure::CannotStart(format!("The HTTP client cannot be made: {error}.")))?;
        Ok(Self { http, predict, server: server.to_owned(), user, model, timeout })
    }

    /// Sends one photo, again under the same request id while the server is busy: so it is stored once.
    ///
    /// # Errors
    /// The server's sentence, or why it could not be reached.
    pub(super) async fn predict(&self, photo: Bytes) -> Result<Answer, String> {
        let deadline = Instant::now() + self.timeout;
        let mut url = self.predict.clone();
        url.query_pairs_mut().append_pair("request_id", &uuid::Uuid::new_v4().to_string());
        for (name, value) in [("user_id", &self.user), ("model", &self.model)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let sent = timeout_at(deadline, self.send(url.clone(), photo.clone())).await;
            let (sentence, named) = match sent {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Refused::ForGood(sentence))) => return Err(sentence),
                Ok(Err(Refused::ForNow(sentence, named))) => (sentence, named),
                Err(_) => return Err(format!("{} did not answer within {:?}.", self.server, self.timeout)),
            };
            let pause = named.unwrap_or(wait);
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(sentence);
            }
            sleep(pause).await;
            wait *= 2;
            attempt += 1;
        }
    }

    async fn send(&self, url: Url, photo: Bytes) -> Result<Answer, Refused> {
        let content_type = media_type(&photo);
        let sent = self.http.post(url).header(CONTENT_TYPE, content_type).body(photo).send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status == StatusCode::OK {
            let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            return answer(&body).map_err(|error| {
                Refused::ForGood(format!("{} is no Convoy of this version: {error}.", self.server))
            });
        }
        let named = retry_after(&response);
        let body = response.bytes().await.unwrap_or_default();
        let sentence = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error,
            Err(_) => format!("{} answered {status}: is it Convoy's feature-service?", self.server),
        };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Refused::ForNow(sentence, named)
            }
            _ => Refused::ForGood(sentence),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Refused {
        let cause = innermost(error);
        if error.is_connect() {
            let sentence = format!(
                "{} cannot be reached ({cause}): start it with `convoy up`, or name another with --server.",
                self.server
            );
            return Refused::ForGood(sentence);
        }
        Refused::ForNow(format!("The connection to {} broke: {cause}.", self.server), None)
    }
}

fn answer(body: &[u8]) -> Result<Answer, serde_json::Error> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    let detections = fields.get("detections").cloned().unwrap_or_default();
    Ok(Answer { detections: serde_json::from_value(detections)?, fields })
}

/// The type of a photo by its first bytes. What is no photo is sent all the same: the server says what is wrong.
fn media_type(photo: &[u8]) -> &'static str {
    image::guess_format(photo).map_or("image/unknown", |format| format.to_mime_type())
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
