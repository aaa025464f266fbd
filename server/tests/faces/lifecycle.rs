use super::support::{Server, config, logged, photo, workspace};
use convoy_proto::inference::{ModelInferRequest, RepositoryIndexRequest, ServerReadyRequest};
use convoy_proto::model_serving::{HealthCheckRequest as Ask, PredictionRequest, PredictionResponse};
use futures_util::stream;
use http::uri::PathAndQuery;
use model_serving::config::AuditUserId;
use model_serving::{Listeners, RunError};
use service_kit::Readiness;
use std::os::unix::fs::symlink;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

const SERVICES: [&str; 3] = ["", "model_serving.ModelServing", "inference.GRPCInferenceService"];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    watch.next().await.expect("the stream goes on").unwrap().status()
}

/// The repository of the workspace, and beside its detector the same file with nothing said about its outputs.
fn with_a_model_without_a_task() -> TempDir {
    let detector = workspace().join("models/vehicle-detector");
    let repository = tempfile::tempdir().unwrap();
    symlink(&detector, repository.path().join("vehicle-detector")).unwrap();
    let model = repository.path().join("untasked");
    std::fs::create_dir(&model).unwrap();
    symlink(detector.join("1"), model.join("1")).unwrap();
    let none = r#"parameters { key: "task" value { string_value: "none" } }"#;
    std::fs::write(model.join("config.pbtxt"), none).unwrap();
    repository
}

/// Opens a Predict call on `channel` whose message is sent later; returns when the server has seen its headers.
async fn open_predict(
    channel: Channel,
) -> (oneshot::Sender<PredictionRequest>, JoinHandle<Result<PredictionResponse, Status>>) {
    let (message, later) = oneshot::channel();
    let (headers_sent, seen) = oneshot::channel();
    let messages = async move {
        // The body is first asked for after the headers have gone.
        headers_sent.send(()).unwrap();
        later.await.unwrap()
    };
    let mut client = tonic::client::Grpc::new(channel.clone());
    let answer = tokio::spawn(async move {
        client.ready().await.unwrap();
        let body = tonic::Request::new(stream::once(messages));
        let path = PathAndQuery::from_static("/model_serving.ModelServing/Predict");
        let codec = ProstCodec::<PredictionRequest, PredictionResponse>::default();
        client.client_streaming(body, path, codec).await.map(tonic::Response::into_inner)
    });
    seen.await.unwrap();
    // The same connection: what it answers now came after those headers.
    HealthClient::new(channel).check(about("")).await.unwrap();
    (message, answer)
}

#[tokio::test]
async fn from_loading_to_the_end_with_every_endless_call_open() {
    let readiness = Readiness::new();
    let not_yet = readiness.hold("the test");
    let repository = with_a_model_without_a_task();
    let mut config = config(repository.path().to_str().unwrap());
    config.default_model = Some("vehicle-detector".to_owned());
    config.audit_user_id = AuditUserId::Hashed;
    config.audit_key = Some("a key of the tests".to_owned().into());
    let mut server = Server::start(config, readiness).await;
    // While the models are loaded, REST says so, and gRPC's port is closed: clients that balance go elsewhere.
    let rest = reqwest::get(format!("http://{}/v2/health/ready", server.http)).await.unwrap();
    assert_eq!(rest.status(), 503);
    server.until_listening().await;
    let mut health = HealthClient::new(server.channel().await);
    let mut predict = server.predict_client().await;
    let mut inference = server.inference_client().await;
    let models =
        inference.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    assert!(models.iter().all(|model| model.state == "READY"), "{models:?}");

    // Not ready: for the server as a whole and for each service, in every protocol.
    for service in SERVICES {
        let status = health.check(about(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing, "{service:?}");
    }
    assert_eq!(health.check(about("no.Such")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(predict.health_check(Ask {}).await.unwrap_err().code(), Code::Unavailable);
    assert!(!inference.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let mut watch = health.watch(about("model_serving.ModelServing")).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    let rest = reqwest::get(format!("http://{}/v2/health/ready", server.http)).await.unwrap();
    assert_eq!(rest.status(), 503);

    // Ready.
    drop(not_yet);
    assert_eq!(next(&mut watch).await, ServingStatus::Serving);
    assert_eq!(predict.health_check(Ask {}).await.unwrap().into_inner().status, "healthy");

    // Calls that their clients never end.
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let mut reflection = reflection
        .server_reflection_info(tokio_stream::pending::<ServerReflectionRequest>())
        .await
        .unwrap()
        .into_inner();
    let mut stream = inference
        .model_stream_infer(tokio_stream::pending::<ModelInferRequest>())
        .await
        .unwrap()
        .into_inner();

    // Draining: said, and everything is still accepted.
    server.shutdown.drain();
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    assert_eq!(predict.health_check(Ask {}).await.unwrap_err().code(), Code::Unavailable);
    let request = PredictionRequest { image: photo(), ..Default::default() };
    predict.predict(request.clone()).await.unwrap();
    server.channel().await;
    let untasked = PredictionRequest { model_name: "untasked".to_owned(), ..request.clone() };
    let status = predict.predict(untasked).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("`untasked` does not detect objects"), "{status}");

    // A request whose headers have come, and whose message has not.
    let request = PredictionRequest { request_id: "last".to_owned(), user_id: "bob".to_owned(), ..request };
    let (message, under_way) = open_predict(server.channel().await).await;

    // Stopping: what is open is answered, every endless call ends, and so does `run`.
    server.shutdown.stop();
    assert!(watch.next().await.is_none());
    assert!(stream.next().await.is_none());
    assert!(reflection.next().await.is_none());
    assert!(!server.ended.is_finished(), "a request is open");
    message.send(request).unwrap();
    assert!(!under_way.await.unwrap().unwrap().detections.is_empty());
    server.ended.await.unwrap().unwrap();
    assert!(!server.readiness.is_ready());
    assert!(tokio::net::TcpStream::connect(server.grpc).await.is_err(), "the port is closed");
    let user = logged("last")[0]["user_id"].as_str().unwrap().to_owned();
    // `printf bob | openssl dgst -sha256 -hmac 'a key of the tests'`, its first 16 bytes.
    assert_eq!(user, "9919fb48d9440f8eb480887fc5362da9");
}

#[tokio::test]
async fn a_repository_that_cannot_be_loaded_ends_the_server() {
    let empty = tempfile::tempdir().unwrap();
    let server = Server::start(config(empty.path().to_str().unwrap()), Readiness::new()).await;
    let error = server.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Load(_)), "{error}");
    assert!(!server.readiness.is_ready());
    assert!(error.to_string().ends_with('.'), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config("models");
    config.metrics_addr = taken.local_addr().unwrap();
    let error = Listeners::bind(&config).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("--metrics-addr"), "{error}");
    assert!(error.to_string().contains(&config.metrics_addr.to_string()), "{error}");
}
