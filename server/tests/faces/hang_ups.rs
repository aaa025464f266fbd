//! Callers that hang up, and callers that come too many.

use super::calls::{Call, Connection, framed};
use super::support::{Server, config, workspace};
use bytes::Bytes;
use convoy_proto::inference::ModelInferRequest;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use model_serving::config::Config;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;

pub(super) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const CLIENTS: usize = 10_000;
const CONNECTIONS: usize = 20;
/// Callers who stay.
const STAYING: usize = 6;
/// Iterations that keep the model's one instance at work for half a second or more. The server learns from a few such
/// calls that the model is slow, and would then let no queue of thousands come about.
pub(super) const LONG: i64 = 1_000_000;

/// Asks the model to count to `n`.
pub(super) fn count_to(n: i64) -> Bytes {
    framed(&ModelInferRequest {
        model_name: "busy".to_owned(),
        inputs: vec![InferInputTensor {
            name: "n".to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![1],
            ..Default::default()
        }],
        raw_input_contents: vec![n.to_le_bytes().to_vec().into()],
        ..Default::default()
    })
}

pub(super) fn series(name: &str) -> String {
    format!("{name}{{model=\"busy\",version=\"1\"}}")
}

/// A server of one instance of the model that counts, and its repository.
pub(super) async fn busy_server(queue_size: u32, body_timeout: Option<Duration>) -> (Server, TempDir) {
    busy_server_with(|config| {
        config.queue_size = queue_size;
        config.body_timeout = body_timeout.into();
    })
    .await
}

/// The same, with these settings.
pub(super) async fn busy_server_with(set: impl FnOnce(&mut Config)) -> (Server, TempDir) {
    let repository = tempfile::tempdir().unwrap();
    let folder = repository.path().join("busy/1");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(workspace().join("server/tests/models/busy.onnx"), folder.join("model.onnx")).unwrap();
    let one = "max_batch_size: 0 instance_group { count: 1 kind: KIND_CPU }";
    fs::write(repository.path().join("busy/config.pbtxt"), one).unwrap();
    let mut config = config(repository.path().to_str().unwrap());
    config.slo = "none".parse().unwrap();
    set(&mut config);
    (Server::ready(config).await, repository)
}

/// While the queue is full, calls are refused before they have sent anything but their headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_calls_on_their_headers() {
    let (server, _repository) = busy_server(1, None).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let busy: Vec<_> = (0..STAYING)
        .map(|_| {
            let (address, stopped) = (server.grpc, stopped.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                while !*stopped.borrow() {
                    let call = connection.call(MODEL_INFER, None).await;
                    call.send(count_to(LONG)).await;
                    let code = call.end().await.code();
                    assert!(matches!(code, Code::Ok | Code::ResourceExhausted), "{code}");
                }
            })
        })
        .collect();
    let mut connection = Connection::open(server.grpc).await;
    let status = loop {
        let mut call = connection.call(MODEL_INFER, None).await;
        // One that is taken waits for its message, and gets none.
        let patience = Duration::from_millis(100);
        match tokio::time::timeout(patience, &mut call.answer).await {
            Ok(answer) => break answer.unwrap().unwrap(),
            Err(_) => call.answer.abort(),
        }
    };
    assert_eq!((status.0.code(), status.1), (Code::ResourceExhausted, true), "{}", status.0);
    assert!(status.0.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    assert!(server.metric("convoy_requests_refused_early_total{reason=\"backlog\"}").await >= 1.0);
    stop.send(true).unwrap();
    for caller in busy {
        caller.await.unwrap();
    }
}

/// 10,000 clients send half a request, or a whole one that waits in the queue, and go. Some reset their calls, some
/// close their connections. Nothing is run for those who have gone, and nothing of theirs stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_hang_up_and_nothing_is_run_for_them() {
    // Whoever sends half a message goes when the test says so.
    let (server, _repository) = busy_server(2 * CLIENTS as u32, None).await;

    // Callers who each ask again when they have their answer: as long as those wait who came first, the instance takes
    // no request of the others.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let busy: Vec<_> = (0..STAYING)
        .map(|_| {
            let (address, stopped) = (server.grpc, stopped.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut answered = 0.0;
                while !*stopped.borrow() {
                    let call = connection.call(MODEL_INFER, Some("600S")).await;
                    call.send(count_to(LONG)).await;
                    let status = call.end().await;
                    match status.code() {
                        Code::Ok => answered += 1.0,
                        // While the others are still queued, it may be told that they are too many.
                        code => assert_eq!(code, Code::ResourceExhausted, "{status}"),
                    }
                }
                answered
            })
        })
        .collect();
    server.until(&series("nv_inference_exec_count"), |count| count >= 1.0).await;

    let message = count_to(1);
    let half = message.slice(..message.len() / 2);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(server.grpc).await;
        let mut calls: Vec<Call> = Vec::new();
        for number in 0..CLIENTS / CONNECTIONS {
            let call = connection.call(MODEL_INFER, None).await;
            let whole = number % 2 == 0;
            assert!(call.send(if whole { message.clone() } else { half.clone() }).await);
            calls.push(call);
        }
        // The whole ones are ended, and wait.
        let mut waiting = Vec::new();
        for (number, call) in calls.into_iter().enumerate() {
            let body = (number % 2 == 1).then_some(call.body);
            waiting.push((body, call.answer));
        }
        connections.push((connection, waiting));
    }
    let queued = CLIENTS as f64 / 2.0;
    server.until(&series("nv_inference_pending_request_count"), |pending| pending >= queued).await;
    assert!(server.metric("convoy_inflight_bytes").await > 0.0);

    for (number, (connection, calls)) in connections.into_iter().enumerate() {
        if number % 2 == 0 {
            calls.into_iter().for_each(|(_, answer)| answer.abort());
        } else {
            connection.close();
        }
    }
    // Only the callers who stay hold anything.
    let staying = (STAYING * 4096) as f64;
    assert!(queued * message.len() as f64 > 2.0 * staying);
    server.until("convoy_inflight_bytes", |bytes| bytes <= staying).await;
    // What the others sent is freed, so they are out of the queue. From now on nothing is executed but for those who stay:
    // each waits for one answer, and may have asked for another one before it saw the end.
    let executions = series("nv_inference_exec_count");
    let before = server.metric(&executions).await;
    stop.send(true).unwrap();
    let mut answered = 0.0;
    for caller in busy {
        answered += caller.await.unwrap();
    }
    let since = server.metric(&executions).await - before;
    assert!(since <= (2 * STAYING) as f64, "{since} executions for {STAYING} callers");
    server.until(&series("nv_inference_pending_request_count"), |pending| pending == 0.0).await;
    let mut connection = Connection::open(server.grpc).await;
    let last = connection.call(MODEL_INFER, None).await;
    last.send(message).await;
    let status = last.end().await;
    assert_eq!(status.code(), Code::Ok, "{status}");
    assert_eq!(server.metric(&series("nv_inference_pending_request_count")).await, 0.0);
    let canceled = server.failures("busy", "CANCELED").await;
    // On a machine with much else to do, the instance may come to some of them while they are still there. Whoever goes
    // while its request is executed is counted as both.
    let run = server.metric(&series("nv_inference_exec_count")).await - answered - 1.0;
    let wasted = "convoy_dead_work_rows_total{model=\"busy\",reason=\"abandoned\",version=\"1\"}";
    let in_flight = server.metric(wasted).await;
    assert_eq!(run + canceled, queued + in_flight, "{run} run, {canceled} gone, {in_flight} of them as both");
    server.until("convoy_inflight_bytes", |bytes| bytes == 0.0).await;
    server.shutdown.drain();
    server.shutdown.stop();
    server.ended.await.unwrap().unwrap();
}
