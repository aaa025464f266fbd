//! The service as a whole, over its ports.
#![allow(clippy::unwrap_used)]

use results_service::{Config, Error, Listeners, run};
use serde_json::{Value, json};
use service_kit::{Readiness, Shutdown};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Running {
    public: SocketAddr,
    admin: SocketAddr,
    readiness: Readiness,
    shutdown: Shutdown,
    ended: JoinHandle<Result<(), Error>>,
}

fn config(database: &Path) -> Config {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        results_addr: any_port,
        admin_addr: any_port,
        db_path: database.to_owned(),
        erasures: None,
        erasure_key_file: None,
        retain: None,
        backup_dir: None,
    }
}

async fn start(database: &Path) -> Running {
    let config = config(database);
    config.validate().unwrap();
    let listeners = Listeners::bind(&config).await.unwrap();
    let (public, admin) = (listeners.addr(), listeners.admin_addr());
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let ended = tokio::spawn(run(config, listeners, readiness.clone(), shutdown.clone()));
    Running { public, admin, readiness, shutdown, ended }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    async fn until_ready(&self) {
        // Connections are taken from the start on; the answer says when the database is open.
        while reqwest::get(self.url("/ready")).await.unwrap().status() != 200 {
            self.readiness.wait_ready().await;
        }
    }

    async fn stop(self) {
        self.shutdown.stop();
        self.ended.await.unwrap().unwrap();
    }
}

fn sample(request_id: &str) -> Value {
    json!({"request_id": request_id, "user_id": "u1", "predictions": [], "model_version": "1", "inference_time_ms": 1})
}

fn database(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("data/predictions.db")
}

#[tokio::test]
async fn without_its_database_it_is_never_ready() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("predictions.db");
    std::fs::write(&file, "no database, whatever its name says").unwrap();
    let Running { readiness, ended, .. } = start(&file).await;
    assert!(matches!(ended.await.unwrap(), Err(Error::Open(_))));
    assert!(!readiness.is_ready());
}

#[tokio::test]
async fn it_starts_stores_drains_stops_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(&database(&folder)).await;
    assert_ne!(service.public.port(), 0);
    assert_eq!(reqwest::get(service.url("/health")).await.unwrap().status(), 200);
    service.until_ready().await;

    let client = reqwest::Client::new();
    let created = client.post(service.url("/predictions")).json(&sample("r1")).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let stats = reqwest::get(format!("http://{}/stats", service.admin)).await.unwrap();
    assert_eq!(stats.json::<Value>().await.unwrap()["predictions"], 1);

    // Draining: unready, and everything is still served.
    let mut readiness = service.readiness.watch();
    service.shutdown.drain();
    readiness.wait_for(|ready| !ready).await.unwrap();
    assert_eq!(reqwest::get(service.url("/ready")).await.unwrap().status(), 503);
    let created = client.post(service.url("/predictions")).json(&sample("r2")).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let public = service.public;
    service.stop().await;
    assert!(TcpStream::connect(public).await.is_err(), "the port is closed");

    let again = start(&database(&folder)).await;
    again.until_ready().await;
    let listed: Value = reqwest::get(again.url("/predictions/user/u1")).await.unwrap().json().await.unwrap();
    assert_eq!(listed["count"], 2);
    assert_eq!(listed["predictions"][0]["request_id"], "r2");
    again.stop().await;
}

/// A request whose body is still being sent when the service is told to stop is served to its end.
#[tokio::test]
async fn a_request_that_had_begun_is_stored_though_the_service_stops() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(&database(&folder)).await;
    service.until_ready().await;
    let body = sample("slow").to_string();
    let mut client = TcpStream::connect(service.public).await.unwrap();
    let head = format!(
        "POST /predictions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    // The service says that it waits for the body.
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let mut readiness = service.readiness.watch();
    service.shutdown.stop();
    readiness.wait_for(|ready| !ready).await.unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    service.stop().await;

    let again = start(&database(&folder)).await;
    again.until_ready().await;
    assert_eq!(reqwest::get(again.url("/predictions/slow")).await.unwrap().status(), 200);
    again.stop().await;
}

/// A client that sends all of a body before it listens hears why it was refused, and not that the connection broke.
#[tokio::test]
async fn a_huge_body_is_answered_and_the_service_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(&database(&folder)).await;
    service.until_ready().await;
    let body = vec![b'['; 40 << 20];
    for content_type in ["application/json", "text/plain"] {
        let mut client = TcpStream::connect(service.public).await.unwrap();
        let head = format!(
            "POST /predictions HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large"), "{answer}");
        assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
    }
    let client = reqwest::Client::new();
    let created = client.post(service.url("/predictions")).json(&sample("r1")).send().await.unwrap();
    assert_eq!(created.status(), 201);
    service.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_ends_the_service_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "Dear diary").unwrap();
    let service = start(&path).await;
    let error = service.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Open(_)), "{error:?}");
    assert!(
        error.to_string().ends_with("is not an SQLite database: set --db-path (DB_PATH) to another file.")
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "Dear diary");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = Listeners::bind(&config(&database(&folder))).await.unwrap();
    let taken = Config { results_addr: listeners.addr(), ..config(&database(&folder)) };
    let error = Listeners::bind(&taken).await.unwrap_err();
    assert!(error.to_string().contains(&listeners.addr().to_string()), "{error}");
}
