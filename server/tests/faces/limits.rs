//! What all requests together may hold (`--max-inflight-bytes`), and the largest image.

use super::calls::{Connection, framed};
use super::support::{Server, config, photo};
use bytes::Bytes;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::{InferParameter, ModelInferRequest};
use convoy_proto::model_serving::PredictionRequest;
use flate2::Compression;
use flate2::write::GzEncoder;
use model_serving::config::ByteSize;
use reqwest::Client;
use sandbox::{Limits, Sandbox, SandboxConfig};
use serde_json::Value;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

const PREDICT: &str = "/model_serving.ModelServing/Predict";
const IN_FLIGHT: &str = "convoy_inflight_bytes";
const REFUSED_FOR_MEMORY: &str = "convoy_requests_refused_early_total{reason=\"memory\"}";
const PIECE: usize = 64 << 10;

async fn server(mebibytes: usize) -> Server {
    let mut config = config("models");
    config.max_inflight_bytes = ByteSize::from(mebibytes << 20);
    config.profile_time = Duration::from_millis(50);
    Server::ready(config).await
}

/// A message of this many MiB that holds no image.
fn upload(mebibytes: usize) -> Bytes {
    framed(&PredictionRequest { image: vec![0; mebibytes << 20].into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_trickle_large_bodies_stay_within_the_budget_and_all_are_answered() {
    const CALLERS: usize = 100;
    const BUDGET: usize = 64;
    let server = server(BUDGET).await;
    let message = upload(4);
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(Connection::open(server.grpc).await);
    }
    let mut calls = Vec::new();
    for caller in 0..CALLERS {
        calls.push(Some(connections[caller % 4].call(PREDICT, None).await));
    }
    let (mut refused, mut highest) = (Vec::new(), 0.0_f64);
    // A piece of each in turn, as callers do that trickle: no one is done before all want more than there is.
    for start in (0..message.len()).step_by(PIECE) {
        let piece = message.slice(start..message.len().min(start + PIECE));
        for call in &mut calls {
            let wanted = match call {
                Some(open) => open.send(piece.clone()).await,
                None => continue,
            };
            if !wanted {
                refused.push(call.take().unwrap().end().await);
            }
        }
        highest = highest.max(server.metric(IN_FLIGHT).await);
    }
    assert!(highest <= (BUDGET << 20) as f64, "{highest}");
    assert!(highest > (BUDGET << 19) as f64, "{highest}: there was no crowd");
    let mut ended = 0;
    for call in calls.into_iter().flatten() {
        match call.end().await {
            status if status.code() == Code::InvalidArgument => ended += 1,
            status => refused.push(status),
        }
    }
    assert_eq!(ended + refused.len(), CALLERS);
    assert!(ended > 0, "some always come to their end");
    assert!(refused.len() > CALLERS / 2, "{} of 400 MiB fit into 64", refused.len());
    for status in &refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status}");
    }
    // Others found no place in the sandbox when their bodies had come.
    assert!(server.metric(REFUSED_FOR_MEMORY).await > 0.0);
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_budget_calls_are_refused_on_their_headers_and_health_is_answered() {
    let mut config = config("models");
    config.max_inflight_bytes = ByteSize::from(16 << 20);
    config.body_timeout = None.into();
    let server = Server::ready(config).await;
    let mut connection = Connection::open(server.grpc).await;
    let message = upload(4);
    // Seven eighths are held by calls that do not come to their end.
    let mut held = Vec::new();
    for _ in 0..4 {
        let call = connection.call(PREDICT, None).await;
        assert!(call.send(message.slice(..7 << 19)).await);
        held.push(call);
    }
    server.until(IN_FLIGHT, |bytes| bytes >= (14 << 20) as f64).await;

    let late = connection.call(PREDICT, None).await;
    let (status, in_headers) = late.answer.await.unwrap().unwrap();
    assert_eq!((status.code(), in_headers), (Code::ResourceExhausted, true), "{status}");
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(server.metric(REFUSED_FOR_MEMORY).await, 1.0);
    assert!(late.body.is_closed(), "its body is not wanted");
    // Callers who send their bodies at once are in the middle of it then. However many they are, their connection
    // stays: what comes late for a call that has ended is no offence.
    let mut eager = Vec::new();
    for _ in 0..1_500 {
        let call = connection.call(PREDICT, None).await;
        let _ = call.body.try_send(Ok(http_body::Frame::data(message.slice(..60 << 10))));
        eager.push(call.answer);
    }
    for answer in eager {
        assert_eq!(answer.await.unwrap().unwrap().0.code(), Code::ResourceExhausted);
    }
    let mut health = HealthClient::new(server.channel().await);
    let about = HealthCheckRequest { service: String::new() };
    health.check(about).await.unwrap();

    // Over HTTP too: before the body is asked for, and while one is being sent.
    let mut asking = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let head = "POST /v2/models/vehicle-detector/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 270000\r\n\
                Expect: 100-continue\r\n\r\n";
    asking.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = asking.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("\"overloaded\""), "{answer}");
    let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
    let sending = reqwest::Client::new().post(&url).body(vec![b' '; 8 << 20]).send().await.unwrap();
    assert_eq!(sending.status(), 429);
    // The model is known, from the path or as the only one: for it, they are failures like those in its queue.
    assert_eq!(server.failures("vehicle-detector", "REJECTED").await, 1_503.0);
    assert_eq!(server.metric(REFUSED_FOR_MEMORY).await, 1_503.0);
    let statistics = reqwest::get(format!("{}/stats", url.trim_end_matches("/infer"))).await.unwrap();
    let statistics: serde_json::Value = statistics.json().await.unwrap();
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["fail"]["count"], 1_503);
    let metadata = reqwest::get(format!("http://{}/v2/models/vehicle-detector", server.http)).await.unwrap();
    assert_eq!(metadata.status(), 200);

    // Callers that hang up give back what they held.
    held.into_iter().for_each(|call| call.answer.abort());
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    let request = PredictionRequest { image: photo(), ..Default::default() };
    let answer = server.predict_client().await.predict(request).await.unwrap();
    assert!(!answer.into_inner().detections.is_empty());
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

#[tokio::test]
async fn a_deadline_that_no_queue_is_to_blame_for_is_told_apart() {
    let server = server(16).await;
    let request = PredictionRequest { image: photo(), ..Default::default() };
    let code = server.raw_unary(PREDICT, "100u", &request).await;
    assert_eq!(code, Code::DeadlineExceeded);
    let refused = |reason: &str| format!("convoy_requests_refused_early_total{{reason=\"{reason}\"}}");
    assert_eq!(server.metric(&refused("hopeless")).await, 1.0);
    assert_eq!(server.metric(&refused("backlog")).await, 0.0);
    assert_eq!(server.failures("vehicle-detector", "REJECTED").await, 1.0);
}

#[tokio::test]
async fn a_request_that_never_fits_is_not_told_to_come_again() {
    let server = server(16).await;
    let mut connection = Connection::open(server.grpc).await;
    let call = connection.call(PREDICT, None).await;
    call.send(upload(20)).await;
    let status = call.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("15728640 bytes"), "{status}");
    let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
    let answer = reqwest::Client::new().post(url).body(vec![b' '; 20 << 20]).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert!(answer.text().await.unwrap().contains("15728640 bytes"));
}

/// A request of 1 KB that becomes 300 times as much: what it becomes is counted, in both faces.
#[tokio::test]
async fn what_compressed_requests_become_is_counted() {
    const BUDGET: usize = 32;
    let server = server(BUDGET).await;
    let spaces = vec![b' '; (BUDGET + 8) << 20];
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&spaces).unwrap();
    let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
    let request = reqwest::Client::new().post(url).header("content-encoding", "gzip");
    let response = request.body(encoder.finish().unwrap()).send().await.unwrap();
    assert_eq!(response.status(), 413, "it does not fit into all of the memory");

    let padding = InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam(String::from_utf8(spaces).unwrap())),
    };
    let request = ModelInferRequest {
        parameters: [("padding".to_owned(), padding)].into(),
        ..ModelInferRequest::default()
    };
    let mut client = server.inference_client().await.send_compressed(CompressionEncoding::Gzip);
    let status = client.model_infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("bytes of memory"), "{status}");
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

/// Resident memory of this process, which is server and callers, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "sends gigabytes: `make test-memory` runs it alone"]
#[allow(clippy::print_stdout, reason = "who runs it by hand wants to see it")]
async fn five_hundred_callers_of_60_mib_leave_memory_under_the_budget_and_what_it_was() {
    const CALLERS: usize = 500;
    const MIB: usize = 1 << 20;
    let server = server(1024).await;
    let message = upload(60);
    let before = resident();
    // Callers are strangers to each other: each has a connection, and what a connection takes counts as well.
    let (mut connections, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..CALLERS {
        let mut connection = Connection::open(server.grpc).await;
        calls.push(Some(connection.call(PREDICT, None).await));
        connections.push(connection);
    }
    let (mut refused, mut highest) = (0, 0);
    for start in (0..message.len()).step_by(MIB / 4) {
        let piece = message.slice(start..message.len().min(start + MIB / 4));
        for call in &mut calls {
            let wanted = match call {
                Some(open) => open.send(piece.clone()).await,
                None => continue,
            };
            if !wanted {
                assert_eq!(call.take().unwrap().end().await.code(), Code::ResourceExhausted);
                refused += 1;
            }
        }
        highest = highest.max(resident());
    }
    let mut ended = 0;
    for call in calls.into_iter().flatten() {
        match call.end().await.code() {
            Code::InvalidArgument => ended += 1,
            code => assert_eq!(code, Code::ResourceExhausted),
        }
    }
    let grown = (highest - before) / MIB;
    println!(
        "{ended} ended and {refused} were refused on the way; resident memory grew by {grown} MiB at most"
    );
    assert!(ended > 0 && refused > 0);
    assert!(grown < 1024, "{grown} MiB");
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

#[tokio::test]
async fn an_image_over_the_limit_is_refused_with_the_settings_name_however_it_comes() {
    let most = photo().len();
    let limits = Limits { max_image_bytes: most, ..Limits::default() };
    let sandbox = Sandbox::new(SandboxConfig { limits, workers: 1, ..SandboxConfig::default() }).unwrap();
    let mut config = config("models");
    config.profile_time = Duration::from_millis(1);
    let server = Server::ready_with(config, sandbox).await;
    // What follows a JPEG's end is not looked at.
    let too_large: Bytes = [&photo()[..], &[0]].concat().into();

    let mut client = server.predict_client().await;
    let mut predict = async |image| client.predict(PredictionRequest { image, ..Default::default() }).await;
    assert!(!predict(photo()).await.unwrap().into_inner().detections.is_empty());
    let error = predict(too_large.clone()).await.unwrap_err();
    let sentence = format!("more than the limit of {most} bytes (--max-image-bytes)");
    assert!(error.code() == Code::InvalidArgument && error.message().contains(&sentence), "{error}");

    // As the only element of a BYTES tensor.
    let infer = async |image: Bytes| {
        let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
        let request = Client::new().post(url).header("inference-header-content-length", 0).body(image);
        request.send().await.unwrap()
    };
    assert_eq!(infer(photo()).await.status(), 200);
    let answer = infer(too_large).await;
    assert_eq!(answer.status(), 413);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "too_large", "{body}");
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("Image 0 of input `images`") && error.contains(&sentence), "{body}");
    server.shutdown.stop();
    server.ended.await.unwrap().unwrap();
}
