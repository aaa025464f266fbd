//! Callers whose bodies stop coming (`--body-timeout`).

use super::calls::{Call, Connection, framed};
use super::hang_ups::{LONG, MODEL_INFER, busy_server, busy_server_with, count_to, series};
use super::support::{Server, config, photo};
use bytes::Bytes;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::{InferParameter, ModelInferRequest};
use convoy_proto::model_serving::PredictionRequest;
use model_serving::config::ByteSize;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;

const PREDICT: &str = "/model_serving.ModelServing/Predict";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const IN_FLIGHT: &str = "convoy_inflight_bytes";
const SLOW: &str = "convoy_requests_refused_early_total{reason=\"slow_body\"}";
/// Requests of a stream that are under way before no more are read.
const AT_ONCE: usize = 16;
/// What may be sent of a stream that is not read.
const WINDOW: usize = 1280 << 10;
/// Five of them, and the budget of 15 MiB has room for nothing more.
const PIECE: usize = 11 << 18;

async fn server() -> Server {
    let mut config = config("models");
    config.max_inflight_bytes = ByteSize::from(16 << 20);
    config.body_timeout = Some(Duration::from_secs(3)).into();
    config.profile_time = Duration::from_millis(50);
    Server::ready(config).await
}

/// The beginning of a message of 60 MiB.
fn beginning() -> Bytes {
    let announced = u32::try_from(60 << 20).unwrap().to_be_bytes();
    [&[0][..], &announced, &[0; PIECE]].concat().into()
}

/// A request over HTTP/1.1 that announces 60 MiB and sends a piece of them.
async fn begin_over_rest(server: &Server) -> TcpStream {
    let mut connection = TcpStream::connect(server.http).await.unwrap();
    let announced = 60 << 20;
    let head = format!(
        "POST /v2/models/vehicle-detector/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {announced}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&[b' '; PIECE]).await.unwrap();
    connection
}

/// Half of the budget is held over gRPC and half over REST, by callers who then send nothing more; some of it by a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_callers_are_let_go_and_others_are_served() {
    let server = server().await;
    let mut connection = Connection::open(server.grpc).await;
    let mut stalled: Vec<Call> = Vec::new();
    for path in [PREDICT, PREDICT, STREAM] {
        let call = connection.call(path, None).await;
        assert!(call.send(beginning()).await);
        stalled.push(call);
    }
    let mut over_rest = [begin_over_rest(&server).await, begin_over_rest(&server).await];
    server.until(IN_FLIGHT, |bytes| bytes >= (5 * PIECE - PIECE / 16) as f64).await;
    let good = || PredictionRequest { image: photo(), ..Default::default() };
    let mut client = server.predict_client().await;
    let refused = client.predict(good()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "they hold all there is: {refused}");

    for call in stalled {
        // The body is still open: the caller would send more, one day.
        let (status, _) = call.answer.await.unwrap().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("too slowly"), "{status}");
        drop(call.body);
    }
    for connection in &mut over_rest {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("too slowly") && answer.contains("\"invalid_input\""), "{answer}");
    }
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    assert_eq!(server.metric(SLOW).await, 5.0);
    assert!(!client.predict(good()).await.unwrap().into_inner().detections.is_empty());
}

/// A stream that says nothing for longer than a body may take, before its first message and after it, is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_not_cut_between_messages() {
    let server = server().await;
    let mut connection = Connection::open(server.grpc).await;
    let stream = connection.call(STREAM, None).await;
    // It would have been a body that is too slow; one is, so that the time need not be known here.
    for round in 1..=2 {
        let stalled = connection.call(PREDICT, None).await;
        assert!(stalled.send(beginning()).await);
        assert_eq!(stalled.answer.await.unwrap().unwrap().0.code(), Code::DeadlineExceeded);
        assert_eq!(server.metric(SLOW).await, f64::from(round));
        let unknown = ModelInferRequest { model_name: "none".to_owned(), ..Default::default() };
        assert!(stream.send(framed(&unknown)).await, "the stream was cut");
    }
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Ok, "{status}");
}

/// Waits until `series` is at least `least`; gives false when `long`, which keeps the model at work, ended before that.
async fn reaches<T>(server: &Server, series: &str, least: f64, long: &JoinHandle<T>) -> bool {
    while server.metric(series).await < least {
        if long.is_finished() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}

/// Streams that the server does not read, since its model is slow, use up their connection's window. Who would send on
/// the same connection cannot, and is not blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_may_not_be_sent_is_waited_for() {
    const STREAMS: usize = 14;
    let (server, _repository) = busy_server(10_000, Some(Duration::from_secs(1))).await;
    let mut connection = Connection::open(server.grpc).await;
    let long = connection.call(MODEL_INFER, None).await;
    long.send(count_to(24 * LONG)).await;
    let long = tokio::spawn(long.end());
    // As many as are read of each stream, and more than its window of 1.25 MiB takes: thirteen fill the connection's of 16 MiB.
    let padding =
        InferParameter { parameter_choice: Some(ParameterChoice::StringParam("x".repeat(1300 << 10))) };
    let padded = framed(&ModelInferRequest {
        model_name: "none".to_owned(),
        parameters: [("padding".to_owned(), padding)].into(),
        ..Default::default()
    });
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = connection.call(STREAM, None).await;
        for _ in 0..AT_ONCE {
            stream.send(count_to(1)).await;
        }
        streams.push(stream);
    }
    let waiting = (STREAMS * AT_ONCE) as f64;
    let pending = series("nv_inference_pending_request_count");
    // On a machine with much else to do the long one may end first: then there is nothing to be blamed for.
    let all_wait = reaches(&server, &pending, waiting, &long).await && !long.is_finished();
    // What may come of streams that are not read is counted before it comes.
    let counted = reaches(&server, IN_FLIGHT, (STREAMS * WINDOW) as f64, &long).await;
    assert!(counted || !all_wait, "the windows are not counted");
    for stream in &streams {
        stream.send(padded.clone()).await;
    }
    let call = connection.call(MODEL_INFER, None).await;
    call.send(padded).await;
    let status = call.end().await;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(long.await.unwrap().code(), Code::Ok);
    for stream in streams {
        assert_eq!(stream.end().await.code(), Code::Ok);
    }
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

/// Two streams that are not read, and room for what may be sent of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_window_finds_no_room_ends_and_another_goes_on() {
    let (server, _repository) = busy_server_with(|config| {
        config.queue_size = 10_000;
        config.max_inflight_bytes = ByteSize::from(2 << 20);
        config.body_timeout = None.into();
    })
    .await;
    let mut connection = Connection::open(server.grpc).await;
    let long = connection.call(MODEL_INFER, None).await;
    long.send(count_to(8 * LONG)).await;
    let long = tokio::spawn(long.end());
    let mut streams = Vec::new();
    let mut in_time = true;
    for _ in 0..2 {
        let stream = connection.call(STREAM, None).await;
        for _ in 0..AT_ONCE {
            stream.send(count_to(1)).await;
        }
        streams.push(tokio::spawn(stream.end()));
        in_time &= reaches(&server, IN_FLIGHT, WINDOW as f64, &long).await && !long.is_finished();
    }
    let early = "convoy_requests_refused_early_total{reason=\"memory\"}";
    in_time &= reaches(&server, early, 1.0, &long).await && !long.is_finished();
    assert_eq!(long.await.unwrap().code(), Code::Ok);
    let mut codes = Vec::new();
    for stream in streams {
        codes.push(stream.await.unwrap().code());
    }
    // On a machine with much else to do the long one may end first, and all are read.
    assert!(codes == [Code::Ok, Code::ResourceExhausted] || !in_time, "{codes:?}");
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}
