//! `ModelStreamInfer`: order, deadlines, readers that do not read, and what all of it holds.

use super::calls::{Connection, framed};
use super::support::{Server, config};
use bytes::Bytes;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelStreamInferResponse,
};
use convoy_proto::model_serving::PredictionRequest;
use model_serving::config::ByteSize;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

const IN_FLIGHT: &str = "convoy_inflight_bytes";
const SUCCESS: &str = "nv_inference_request_success{model=\"vehicle-detector\",version=\"1\"}";
/// Requests of a stream that are under way, or answered and not read.
const AT_ONCE: usize = 16;
/// Boxes and scores of one image.
const RAW_OUTPUTS: usize = 1917 * 84 * 4;

async fn server(mebibytes: usize) -> Server {
    let mut config = config("models");
    config.max_inflight_bytes = ByteSize::from(mebibytes << 20);
    config.profile_time = Duration::from_millis(50);
    Server::ready(config).await
}

/// A grey image, of which all raw outputs are wanted.
fn request(id: usize) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "images".to_owned(),
        datatype: "UINT8".to_owned(),
        shape: vec![1, 300, 300, 3],
        ..Default::default()
    };
    ModelInferRequest {
        model_name: "vehicle-detector".to_owned(),
        id: id.to_string(),
        inputs: vec![input],
        raw_input_contents: vec![vec![127; 300 * 300 * 3].into()],
        ..Default::default()
    }
}

/// Requests for a model that there is not, padded with so many MiB.
fn padded(mebibytes: usize) -> ModelInferRequest {
    let padding = ParameterChoice::StringParam("x".repeat(mebibytes << 20));
    let padding = InferParameter { parameter_choice: Some(padding) };
    ModelInferRequest {
        model_name: "no-such".to_owned(),
        parameters: [("padding".to_owned(), padding)].into(),
        ..Default::default()
    }
}

fn id(answer: &ModelStreamInferResponse) -> usize {
    answer.infer_response.as_ref().unwrap().id.parse().unwrap()
}

/// The answers wait for their reader, one of them in front of what says that the deadline passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_after_the_deadline_is_told_that_answers_are_missing() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let server = server(64).await;
    let mut client = server.inference_client().await;
    // More than the windows of the connection hold, and the caller is never done.
    let (sender, requests) = mpsc::channel(2 * AT_ONCE);
    for number in 0..2 * AT_ONCE {
        sender.try_send(request(number)).unwrap();
    }
    let mut call = Request::new(ReceiverStream::new(requests));
    call.set_timeout(TIMEOUT);
    let begun = Instant::now();
    let mut answers = client.model_stream_infer(call).await.unwrap().into_inner();
    // Not for luck: whenever it reads, it must be told. This way it reads when an answer waits before that.
    tokio::time::sleep_until((begun + TIMEOUT + Duration::from_millis(100)).into()).await;
    let mut read = 0;
    let status = loop {
        match answers.next().await {
            Some(Ok(answer)) => {
                assert_eq!(id(&answer), read, "in order");
                read += 1;
            }
            Some(Err(status)) => break status,
            None => panic!("the stream ended after {read} answers as if nothing were missing"),
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(read < 2 * AT_ONCE, "nothing was missing");
    drop((answers, sender));
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_counted_and_given_back_as_they_are_read() {
    let server = server(256).await;
    let mut client = server.inference_client().await;
    let requests = tokio_stream::iter((0..2 * AT_ONCE).map(request));
    let answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    server.until(SUCCESS, |count| count >= AT_ONCE as f64).await;
    server.until(IN_FLIGHT, |bytes| bytes >= (AT_ONCE * RAW_OUTPUTS) as f64).await;
    let answers: Vec<_> = answers.map(|answer| id(&answer.unwrap())).collect().await;
    assert_eq!(answers, (0..2 * AT_ONCE).collect::<Vec<_>>());
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

/// Requests of one stream each give back what they hold, however they came, and nothing of what the others hold.
#[tokio::test]
async fn a_stream_gives_back_what_its_answered_requests_held() {
    let server = server(64).await;
    for compressed in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Deflate)] {
        let mut client = server.inference_client().await;
        if let Some(encoding) = compressed {
            client = client.send_compressed(encoding);
        }
        let requests = tokio_stream::iter((0..20).map(|_| padded(8)));
        let answers = client.model_stream_infer(requests).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().error_message).collect().await;
        assert_eq!(answers.len(), 20, "160 MiB went through 64");
        assert!(answers.iter().all(|message| message.contains("`no-such`")), "{answers:?}");
        server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
    }
}

/// A million zeros are a byte each on the wire, and eight in memory.
#[tokio::test]
async fn a_request_of_a_stream_that_finds_no_room_is_refused_and_the_stream_goes_on() {
    let server = server(16).await;
    let mut connection = Connection::open(server.grpc).await;
    let others = connection.call("/model_serving.ModelServing/Predict", None).await;
    let upload = framed(&PredictionRequest { image: vec![0; 9 << 20].into(), ..Default::default() });
    assert!(others.send(upload.slice(..8 << 20)).await);
    server.until(IN_FLIGHT, |bytes| bytes >= (8 << 20) as f64).await;

    let zeros = InferTensorContents { int64_contents: vec![0; 1_000_000], ..Default::default() };
    let mut large = request(0);
    large.inputs[0] = InferInputTensor { contents: Some(zeros), ..large.inputs[0].clone() };
    large.raw_input_contents.clear();
    let mut client = server.inference_client().await;
    let requests = tokio_stream::iter([large, request(1)]);
    let answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert!(answers[0].error_message.contains("bytes of memory"), "{:?}", answers[0].error_message);
    assert!(answers[0].error_message.contains("try again"), "{:?}", answers[0].error_message);
    assert_eq!((answers[1].error_message.as_str(), id(&answers[0]), id(&answers[1])), ("", 0, 1));
    others.answer.abort();
    server.until(IN_FLIGHT, |bytes| bytes == 0.0).await;
}

#[tokio::test]
async fn a_message_that_is_not_compressed_is_counted_once_whatever_its_encoding_says() {
    let server = server(32).await;
    let mut client = server.inference_client().await.max_encoding_message_size(64 << 20);
    for encoding in ["identity", "gzip"] {
        let mut call = Request::new(ModelInferRequest {
            model_name: "no-such".to_owned(),
            raw_input_contents: vec![Bytes::from(vec![0; 20 << 20])],
            ..Default::default()
        });
        call.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let status = client.model_infer(call).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "twice 20 MiB are more than there is: {status}");
    }
    let mut unknown = Request::new(request(0));
    unknown.metadata_mut().insert("grpc-encoding", "zstd".parse().unwrap());
    assert_eq!(client.model_infer(unknown).await.unwrap_err().code(), Code::Unimplemented);
}
