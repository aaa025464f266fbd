//! Two model-serving processes behind clients that balance over both: each is restarted under load, and no request
//! fails.

use crate::fixture::data_folder;
use crate::photo;
use crate::process::Process;
use crate::python::Running;
use crate::rest;
use crate::single_services::start;
use convoy::ready_file::Addresses;
use reqwest::Method;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Answers that are waited for between two steps: enough for every caller to have met what changed.
const ANSWERS: usize = 12;

fn model_serving(grpc: OsString) -> (Process, SocketAddr) {
    let free = || OsString::from("127.0.0.1:0");
    let (process, addresses): (_, Addresses) = start(
        "model-serving",
        [
            ("--grpc-addr", grpc),
            ("--http-addr", free()),
            ("--metrics-addr", free()),
            ("--model-path", photo::repository().join("models").into()),
            // Long enough for both kinds of client to be told: health says NOT_SERVING, then GOAWAY.
            ("--shutdown-delay", "500ms".into()),
        ],
    );
    (process, addresses.grpc.unwrap())
}

/// Callers of `POST /predict`; each answer is one message.
struct RestCallers {
    done: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    answers: mpsc::UnboundedReceiver<Result<(), String>>,
    failures: Vec<String>,
}

impl RestCallers {
    fn new(url: &str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (told, answers) = mpsc::unbounded_channel();
        let call = |_| {
            let (done, told, url) = (Arc::clone(&done), told.clone(), url.to_owned());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer =
                        rest::send(Method::POST, url.clone(), Some("image/jpeg"), photo::bytes()).await;
                    let outcome = match answer.status.as_u16() {
                        200 => Ok(()),
                        status => Err(format!("{status}: {}", answer.text)),
                    };
                    let _ = told.send(outcome);
                }
            })
        };
        Self { tasks: (0..3).map(call).collect(), done, answers, failures: Vec::new() }
    }

    async fn wait_for_answers(&mut self) {
        for _ in 0..ANSWERS {
            let answer = self.answers.recv().await.expect("the callers go on");
            self.failures.extend(answer.err());
        }
    }

    async fn end(mut self) -> Vec<String> {
        self.done.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.failures.extend(answer.err());
        }
        self.failures
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_is_restarted_under_load_and_no_request_fails() {
    let (one, first) = model_serving("127.0.0.1:0".into());
    let (two, second) = model_serving("127.0.0.1:0".into());
    let database = data_folder();
    let (_results, of_results) = start(
        "results-service",
        [
            ("--results-addr", "127.0.0.1:0".into()),
            ("--admin-addr", "127.0.0.1:0".into()),
            ("--db-path", database.path().join("predictions.db").into()),
        ],
    );
    let (_feature, of_feature) = start(
        "feature-service",
        [
            ("--feature-addr", "127.0.0.1:0".into()),
            ("--model-serving-url", format!("http://{first},http://{second}").into()),
            ("--results-url", format!("http://{}", of_results.results.unwrap()).into()),
        ],
    );
    let url = format!("http://{}/predict", of_feature.feature.unwrap());
    let mut rest_callers = RestCallers::new(&url);
    let photo = photo::path();
    let mut grpc_callers = Running::start(
        "balanced_client.py",
        &[photo.to_str().unwrap(), &first.to_string(), &second.to_string()],
    );

    let mut back = Vec::new();
    for (mut process, address) in [(one, first), (two, second)] {
        rest_callers.wait_for_answers().await;
        grpc_callers.wait_for_lines(ANSWERS);
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        rest_callers.wait_for_answers().await;
        grpc_callers.wait_for_lines(ANSWERS);
        // Back at its address: the next step takes the other one away, so that this one is needed.
        back.push(model_serving(address.to_string().into()));
        rest_callers.wait_for_answers().await;
        grpc_callers.wait_for_lines(ANSWERS);
    }
    let failures = rest_callers.end().await;
    assert!(failures.is_empty(), "{failures:#?}");
    let told = grpc_callers.end();
    assert_eq!(told["failures"], serde_json::json!([]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_address_the_answer_names_the_peer() {
    let (_feature, of_feature) = start(
        "feature-service",
        [
            ("--feature-addr", "127.0.0.1:0".into()),
            ("--model-serving-url", "http://no-such-host.invalid:1".into()),
            ("--results-url", "http://127.0.0.1:1".into()),
        ],
    );
    let base = format!("http://{}", of_feature.feature.unwrap());
    let answer =
        rest::send(Method::POST, format!("{base}/predict"), Some("image/jpeg"), photo::bytes()).await;
    let sentence = answer.error(503, "unavailable");
    assert!(sentence.contains("no-such-host.invalid"), "{sentence}");
}

/// Stays connected without a call until the server ends the connection. Gives whether it said so (GOAWAY, RFC 9113, 6.8) first.
fn is_told_to_go_away(server: SocketAddr) -> bool {
    let mut connection = std::net::TcpStream::connect(server).unwrap();
    // The preface, and settings without any.
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut told = false;
    let mut head = [0; 9];
    while connection.read_exact(&mut head).is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if connection.read_exact(&mut payload).is_err() {
            break;
        }
        match head[3] {
            // The ping whose answer tells the server that its GOAWAY was read.
            6 if head[4] & 1 == 0 => {
                let answer = [&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat();
                connection.write_all(&answer).unwrap();
            }
            7 => told = true,
            _ => {}
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_at_their_age_and_no_call_fails() {
    let free = || OsString::from("127.0.0.1:0");
    let (_process, addresses): (_, Addresses) = start(
        "model-serving",
        [
            ("--grpc-addr", free()),
            ("--http-addr", free()),
            ("--metrics-addr", free()),
            ("--model-path", photo::repository().join("models").into()),
            ("--max-connection-age", "1s".into()),
        ],
    );
    let server = addresses.grpc.unwrap();
    let photo = photo::path();
    let mut callers = Running::start("balanced_client.py", &[photo.to_str().unwrap(), &server.to_string()]);
    callers.wait_for_lines(ANSWERS);
    // Its age is over later than that of the callers' connection, which is older.
    assert!(tokio::task::spawn_blocking(move || is_told_to_go_away(server)).await.unwrap());
    callers.wait_for_lines(ANSWERS);
    let told = callers.end();
    assert_eq!(told["failures"], serde_json::json!([]), "{told}");
}
