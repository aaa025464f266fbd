use super::support::{Server, config, photo};
use convoy_proto::inference::{ModelInferRequest, ServerReadyRequest};
use convoy_proto::model_serving::{HealthCheckRequest as Ask, PredictionRequest};
use model_serving::{Listeners, RunError};
use service_kit::Readiness;
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

const SERVICES: [&str; 3] = ["", "model_serving.ModelServing", "inference.GRPCInferenceService"];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    watch.next().await.expect("the stream goes on").unwrap().status()
}

#[tokio::test]
async fn from_loading_to_the_end_with_every_endless_call_open() {
    let readiness = Readiness::new();
    let not_yet = readiness.hold("the test");
    let server = Server::start(config("models"), readiness).await;
    let mut health = HealthClient::new(server.channel().await);
    let mut predict = server.predict_client().await;
    let mut inference = server.inference_client().await;

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

    // Stopping: what is under way is answered, every endless call ends, and so does `run`.
    let under_way = tokio::spawn({
        let mut predict = predict.clone();
        async move { predict.predict(request).await }
    });
    server.shutdown.stop();
    assert!(watch.next().await.is_none());
    assert!(stream.next().await.is_none());
    assert!(reflection.next().await.is_none());
    server.ended.await.unwrap().unwrap();
    // It was answered, or refused before it was begun; it was not cut off.
    match under_way.await.unwrap() {
        Ok(answer) => assert!(!answer.into_inner().detections.is_empty()),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
    }
    assert!(!server.readiness.is_ready());
    assert!(tokio::net::TcpStream::connect(server.grpc).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_repository_that_cannot_be_loaded_ends_the_server() {
    let empty = tempfile::tempdir().unwrap();
    let server = Server::start(config(empty.path().to_str().unwrap()), Readiness::new()).await;
    let error = server.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Load(_)), "{error}");
    assert!(!server.readiness.is_ready() || error.to_string().ends_with('.'), "{error}");
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
