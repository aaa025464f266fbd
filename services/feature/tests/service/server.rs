//! The whole server: its port, its probes, its end, and clients that send too much.

use crate::fakes::{FakeModels, FakeResults};
use crate::rig::{PHOTO, config, sandbox};
use feature_service::{Listeners, RunError};
use serde_json::{Value, json};
use service_kit::{Readiness, Shutdown};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Server {
    addr: SocketAddr,
    shutdown: Shutdown,
    readiness: Readiness,
    task: JoinHandle<Result<(), RunError>>,
}

async fn start(model_serving_url: &str, results_url: &str) -> Server {
    let config = config(model_serving_url, results_url);
    let listeners = Listeners::bind(&config).await.unwrap();
    let addr = listeners.addr();
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let task =
        tokio::spawn(feature_service::run(config, listeners, sandbox(), readiness.clone(), shutdown.clone()));
    Server { addr, shutdown, readiness, task }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(format!("http://{}{path}", self.addr)).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn it_answers_probes_and_ends_when_told() {
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let server = start(&models.url(), &results.url()).await;
    let (status, health) = server.get("/health").await;
    assert_eq!(
        (status, &health["status"], &health["service"]),
        (200, &json!("healthy"), &json!("feature-service"))
    );
    server.readiness.wait_ready().await;
    let (status, ready) = server.get("/ready").await;
    let peers = json!({"model-serving": {"ready": true}, "results-service": {"ready": true}});
    let expected = json!({"ready": true, "service": "feature-service", "waiting_for": [], "peers": peers});
    assert_eq!((status, ready), (200, expected));

    server.shutdown.drain();
    let mut changes = server.readiness.watch();
    changes.wait_for(|ready| !ready).await.unwrap();
    let (status, ready) = server.get("/ready").await;
    assert_eq!((status, &ready["waiting_for"]), (503, &json!(["draining"])));
    let (status, _) = server.get("/health").await;
    assert_eq!(status, 200, "a draining server serves");

    server.shutdown.stop();
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn peers_that_are_down_are_told_and_do_not_make_it_unready() {
    let results = FakeResults::start().await;
    // It accepts connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = start(&format!("http://{}", silent.local_addr().unwrap()), &results.url()).await;
    server.readiness.wait_ready().await;
    let (status, ready) = server.get("/ready").await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    assert_eq!(ready["peers"]["model-serving"]["ready"], false);
    assert!(ready["peers"]["model-serving"]["error"].as_str().is_some());
    assert_eq!(ready["peers"]["results-service"], json!({"ready": true}));
    server.shutdown.stop();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_same_shape() {
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let server = start(&models.url(), &results.url()).await;
    for (path, status, code) in
        [("/", 404, "not_found"), ("/predict", 405, "invalid_input"), ("/preprocess", 405, "invalid_input")]
    {
        let (found, body) = server.get(path).await;
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{path}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config("http://localhost:1", "http://localhost:1");
    config.feature_addr = taken.local_addr().unwrap();
    let error = Listeners::bind(&config).await.unwrap_err().to_string();
    assert!(error.contains(&config.feature_addr.to_string()) && error.contains("--feature-addr"), "{error}");
}

/// Reads an answer that ends with the connection.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_a_byte_of_it_is_sent() {
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let server = start(&models.url(), &results.url()).await;
    for path in ["/predict", "/preprocess"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: 209715200\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut start = vec![0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(start, b"HTTP/1.1 413");
    }
}

#[tokio::test]
async fn a_client_that_sends_too_much_to_its_end_still_reads_the_answer() {
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let server = start(&models.url(), &results.url()).await;
    // Far more than sockets buffer: without someone who reads on, this client would only see a reset.
    const CHUNKS: usize = 256;
    let chunk = vec![b'a'; 1 << 18];
    let length = CHUNKS * chunk.len();
    let declared = format!("Content-Length: {length}\r\nContent-Type: image/jpeg");
    let refused = format!("Content-Length: {length}\r\nContent-Type: text/plain");
    let chunked = "Transfer-Encoding: chunked\r\nContent-Type: image/jpeg".to_owned();
    for (headers, status) in [(declared, "413"), (refused, "415"), (chunked, "413")] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let head = format!("POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let in_chunks = headers.contains("chunked");
        for _ in 0..CHUNKS {
            if in_chunks {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
            }
            stream.write_all(&chunk).await.unwrap();
            if in_chunks {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        if in_chunks {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("\"error\":\""), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_is_open_when_it_stops_is_answered() {
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let server = start(&models.url(), &results.url()).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        PHOTO.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body: the handler has begun.
    let mut go_on = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    server.shutdown.stop();
    stream.write_all(PHOTO).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"detections\":[{"), "{answer}");
    server.task.await.unwrap().unwrap();
    assert_eq!(results.store().records.len(), 1);
}
