//! The HTTP client of results-service.

use crate::inference::Call;
use crate::{ConfigError, Error, config};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service_kit::json_error::ErrorBody;
use std::error::Error as _;
use std::time::Duration;
use tokio::time::timeout_at;

/// The peer's name in answers and logs.
pub(crate) const PEER: &str = "results-service";
/// A peer that takes longer to accept a connection is down; the next request tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read: a record is a few kilobytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A prediction to be stored.
#[derive(Debug, Serialize)]
pub(crate) struct NewPrediction<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) model_name: &'a str,
    pub(crate) model_version: &'a str,
    pub(crate) inference_time_ms: f64,
    /// The detections as the answer has them; they come back byte for byte.
    pub(crate) predictions: &'a RawValue,
    /// By this results-service knows the same request again.
    pub(crate) content_sha256: &'a str,
    /// When the request was taken in, RFC 3339: an erasure of the user after that wins.
    pub(crate) received_at: &'a str,
}

/// A prediction as it is stored.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) user_id: String,
    #[serde(default)]
    pub(crate) model_name: Option<String>,
    pub(crate) model_version: String,
    pub(crate) inference_time_ms: f64,
    pub(crate) predictions: Box<RawValue>,
    #[serde(default)]
    pub(crate) content_sha256: Option<String>,
    /// When it was stored.
    pub(crate) timestamp: String,
}

/// What became of a prediction that was to be stored.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It is stored; the time is known if the answer told it.
    New {
        /// When it was stored.
        timestamp: Option<String>,
    },
    /// The same request was stored before.
    Before(Record),
    /// The id is another request's.
    Conflict,
    /// The user was erased after the request was taken in; it is not stored.
    Erased,
}

/// Why results-service did not do what it was asked.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// Down, overloaded, broken or too slow: the same call may succeed later. The text has no full stop at its end.
    Unavailable(String),
    /// It refuses the call for good, or its answer is not understood: a fault between the two services.
    Fault(String),
}

/// The client. Cheap to clone; all clones share one pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    client: Client,
    base: Url,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    timestamp: Option<String>,
}

impl Results {
    /// A client of the service at `url`; connects with the first call.
    pub(crate) fn new(url: &str) -> Result<Self, NewError> {
        let base = config::peer_url("--results-url", url)?;
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A peer of ours: a proxy for the outside world that the environment names is not for it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, base })
    }

    /// The record of `request_id`, if there is one.
    pub(crate) async fn find(&self, request_id: &str, call: &Call) -> Result<Option<Record>, StoreError> {
        let (status, body) = self.send(self.client.get(self.url(&["predictions", request_id])), call).await?;
        match status {
            StatusCode::OK => parse(&body).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(refused(other, &body)),
        }
    }

    /// Stores `prediction`. Safe to repeat: the same request is stored once.
    pub(crate) async fn store(
        &self,
        prediction: &NewPrediction<'_>,
        call: &Call,
    ) -> Result<Stored, StoreError> {
        let request = self.client.post(self.url(&["predictions"])).json(prediction);
        let (status, body) = self.send(request, call).await?;
        match status {
            StatusCode::CREATED => {
                let Created { timestamp } = parse(&body)?;
                Ok(Stored::New { timestamp })
            }
            StatusCode::OK => parse(&body).map(Stored::Before),
            StatusCode::CONFLICT if is_erased(&body) => Ok(Stored::Erased),
            StatusCode::CONFLICT => Ok(Stored::Conflict),
            other => Err(refused(other, &body)),
        }
    }

    /// Whether it says that it is ready.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let answer = self.client.get(self.url(&["ready"])).send().await.map_err(|error| reason(&error))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
    }

    async fn send(&self, request: RequestBuilder, call: &Call) -> Result<(StatusCode, Vec<u8>), StoreError> {
        let request = match &call.traceparent {
            Some(trace) => request.header("traceparent", trace.clone()),
            None => request,
        };
        let exchange = async {
            let answer = request.send().await.map_err(|error| StoreError::Unavailable(reason(&error)))?;
            Ok((answer.status(), body(answer).await?))
        };
        match timeout_at(call.deadline, exchange).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable("it did not answer in time".to_owned())),
        }
    }

    /// The URL of a path; each segment is one segment, whatever characters are in it.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // `peer_url` took http alone, and such a URL has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error(transparent)]
    Url(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

impl From<NewError> for crate::RunError {
    fn from(error: NewError) -> Self {
        match error {
            NewError::Url(error) => error.into(),
            NewError::Client(error) => error.into(),
        }
    }
}

impl StoreError {
    /// The answer when nothing had been done yet.
    pub(crate) fn before_work(self) -> Error {
        match self {
            Self::Unavailable(detail) => Error::NotLookedUp { detail },
            Self::Fault(detail) => Error::PeerAnswer { peer: PEER, detail },
        }
    }

    /// The answer when there is a prediction that is not known to be stored.
    pub(crate) fn after_work(self) -> Error {
        match self {
            Self::Unavailable(detail) => Error::NotStored { detail },
            Self::Fault(detail) => Error::PeerAnswer { peer: PEER, detail },
        }
    }
}

async fn body(mut answer: Response) -> Result<Vec<u8>, StoreError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| StoreError::Unavailable(reason(&error)))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(StoreError::Fault(format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|error| StoreError::Fault(error.to_string()))
}

/// Whether a conflict is with an erasure, and not with another request.
fn is_erased(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorBody>(body).is_ok_and(|body| body.code == "erased")
}

fn refused(status: StatusCode, body: &[u8]) -> StoreError {
    // 408 and 429 are the only answers of the client's class that another try can change.
    let later = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    if later {
        return StoreError::Unavailable(format!("it answers {status}"));
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(500)]);
    StoreError::Fault(format!("{status} with {text:?}"))
}

/// The innermost cause, which says what happened (`Connection refused`), without our peer's address.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.source().is_none() { "the request failed".to_owned() } else { cause.to_string() }
}
