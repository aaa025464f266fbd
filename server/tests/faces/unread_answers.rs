//! Callers who do not read their answers (`--answer-timeout`).

use super::calls::framed;
use super::support::{Server, config};
use bytes::Bytes;
use convoy_proto::inference::ModelInferRequest;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const IN_FLIGHT: &str = "convoy_inflight_bytes";
const GIVEN_UP: &str = "convoy_answers_given_up_total";
/// Their raw outputs are 5 MB: more than any window here, and than the system keeps for a connection.
const ROWS: usize = 8;
const ROW: usize = 300 * 300 * 3;

async fn server() -> Server {
    let mut config = config("models");
    config.answer_timeout = Some(Duration::from_secs(2)).into();
    config.profile_time = Duration::from_millis(50);
    Server::ready(config).await
}

/// A connection on which each answer may be `window` bytes before it is read.
async fn connect(address: SocketAddr, window: u32) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut builder = Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    sender
}

/// Asks for all raw outputs of eight images; gives the answer's beginning.
async fn ask(sender: &mut SendRequest<Full<Bytes>>) -> Response<Incoming> {
    let request = ModelInferRequest {
        model_name: "vehicle-detector".to_owned(),
        inputs: vec![InferInputTensor {
            name: "images".to_owned(),
            datatype: "UINT8".to_owned(),
            shape: vec![ROWS as i64, 300, 300, 3],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; ROWS * ROW].into()],
        ..Default::default()
    };
    let request = Request::post("http://server/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(framed(&request)))
        .unwrap();
    sender.ready().await.unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_are_given_up_and_others_on_their_connection_go_on() {
    let server = server().await;
    let mut sender = connect(server.grpc, 65_535).await;
    let unread = [ask(&mut sender).await, ask(&mut sender).await];
    // Each as the message that it is sent from.
    server.until(IN_FLIGHT, |bytes| bytes >= 10e6).await;
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    assert_eq!(server.metric(GIVEN_UP).await, 2.0);
    for answer in unread {
        assert!(answer.into_body().collect().await.is_err(), "only a part was sent");
    }
    let read = ask(&mut sender).await.into_body().collect().await.unwrap();
    assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
    assert!(read.to_bytes().len() > 5_000_000);
}

/// No window at all: the transport has the answer in hand, and does not ask whether it is still to be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_may_not_begin_is_ended_with_its_connection() {
    let server = server().await;
    let mut sender = connect(server.grpc, 0).await;
    let _unread = ask(&mut sender).await;
    server.until(IN_FLIGHT, |bytes| bytes >= 5e6).await;
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    assert_eq!(server.metric(GIVEN_UP).await, 1.0);
    while !sender.is_closed() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_over_rest_that_are_not_read_are_given_up_and_counted_once() {
    let server = server().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(server.http).await.unwrap();
    let json = format!(
        r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"images","datatype":"UINT8",
        "shape":[{ROWS},300,300,3],"parameters":{{"binary_data_size":{}}}}}]}}"#,
        ROWS * ROW
    );
    let head = format!(
        "POST /v2/models/vehicle-detector/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {}\r\n\r\n{json}",
        json.len() + ROWS * ROW,
        json.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![0; ROWS * ROW]).await.unwrap();
    let mut begun = [0; 1024];
    connection.read_exact(&mut begun).await.unwrap();
    let begun = String::from_utf8_lossy(&begun);
    let length = begun.split_once("\ncontent-length: ").unwrap().1.split_once("\r\n").unwrap().0;
    let (length, held) = (length.parse::<f64>().unwrap(), server.metric(IN_FLIGHT).await);
    // Its outputs are its batch's, where they are counted until they are sent.
    assert!(
        length > 4.5e6 && (length * 0.9..length * 1.1).contains(&held),
        "{held} bytes for an answer of {length}"
    );
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    assert_eq!(server.metric(GIVEN_UP).await, 1.0);
    let mut read = Vec::new();
    // Reset, or closed early: that depends on where the connection was when its time was over.
    let ended = connection.read_to_end(&mut read).await;
    assert!(ended.is_err() || (read.len() as f64) < length, "all of it came");
}
