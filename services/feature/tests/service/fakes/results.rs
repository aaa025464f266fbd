//! A results-service that keeps its contract in a map, or breaks it as it is told to.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What is stored, and what was asked.
#[derive(Default)]
pub(crate) struct Store {
    /// The records, by request id, as `GET` answers them.
    pub(crate) records: BTreeMap<String, Map<String, Value>>,
    /// What `POST` answers instead of storing.
    pub(crate) post_fails_with: Option<StatusCode>,
    /// Stored first, then this is answered: as if the answer was lost.
    pub(crate) post_answers_after_storing: Option<StatusCode>,
    /// `GET` does not find what there is: as if it was stored just after.
    pub(crate) hides_records: bool,
    /// What `GET` answers instead.
    pub(crate) get_fails_with: Option<StatusCode>,
    /// The answer to a new record tells its time.
    pub(crate) tells_timestamp: bool,
    /// The user was erased after the request was received.
    pub(crate) has_erased: bool,
    /// Neither answers.
    pub(crate) hangs: bool,
    pub(crate) gets: usize,
    pub(crate) posts: usize,
    /// Of the latest request.
    pub(crate) headers: HeaderMap,
}

pub(crate) struct FakeResults {
    pub(crate) addr: SocketAddr,
    store: Arc<Mutex<Store>>,
}

impl FakeResults {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let router = Router::new()
            .route("/ready", get(|| async { "ready" }))
            .route("/predictions", post(create))
            .route("/predictions/{request_id}", get(find))
            .with_state(Arc::clone(&store));
        tokio::spawn(axum::serve(listener, router).into_future());
        Arc::new(Self { addr, store })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The store, to look at or to change.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

type Shared = State<Arc<Mutex<Store>>>;

async fn create(State(store): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if store.lock().unwrap().hangs {
        std::future::pending::<()>().await;
    }
    let mut store = store.lock().unwrap();
    store.posts += 1;
    store.headers = headers;
    if let Some(status) = store.post_fails_with {
        return failure(status);
    }
    let mut record: Map<String, Value> = serde_json::from_slice(&body).unwrap();
    if store.has_erased {
        let body = json!({"error": "Erased.", "code": "erased", "request_id": record["request_id"]});
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    let id = record["request_id"].as_str().unwrap().to_owned();
    if let Some(stored) = store.records.get(&id) {
        let same =
            stored["user_id"] == record["user_id"] && stored["content_sha256"] == record["content_sha256"];
        return if same { Json(stored.clone()).into_response() } else { failure(StatusCode::CONFLICT) };
    }
    // A time that nobody could take for the present.
    let timestamp = format!("2020-01-01T00:00:00.{:06}Z", store.records.len());
    record.insert("timestamp".to_owned(), json!(timestamp));
    store.records.insert(id.clone(), record);
    if let Some(status) = store.post_answers_after_storing {
        return failure(status);
    }
    let mut answer = json!({"status": "success", "request_id": id});
    if store.tells_timestamp {
        answer["timestamp"] = json!(timestamp);
    }
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn find(State(store): Shared, Path(id): Path<String>) -> Response {
    if store.lock().unwrap().hangs {
        std::future::pending::<()>().await;
    }
    let mut store = store.lock().unwrap();
    store.gets += 1;
    if let Some(status) = store.get_fails_with {
        return failure(status);
    }
    match store.records.get(&id).filter(|_| !store.hides_records) {
        Some(record) => Json(record.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND),
    }
}

fn failure(status: StatusCode) -> Response {
    (status, Json(json!({"error": "No.", "code": "as_told", "request_id": null}))).into_response()
}
