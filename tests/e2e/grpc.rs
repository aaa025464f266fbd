//! model-serving over gRPC: its own interface, health, reflection, deadlines.

use crate::fixture::Convoy;
use crate::photo::{self, BoundingBox, Detection, assert_same};
use crate::{python, rest};
use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::model_serving::model_serving_client::ModelServingClient;
use convoy_proto::model_serving::{self, HealthCheckRequest, PredictionRequest};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

pub(crate) fn detection(found: model_serving::Detection) -> Detection {
    let bbox = found.bbox.unwrap();
    Detection {
        class_name: found.class_name,
        confidence: found.confidence.into(),
        bbox: BoundingBox {
            x_min: bbox.x_min.into(),
            y_min: bbox.y_min.into(),
            x_max: bbox.x_max.into(),
            y_max: bbox.y_max.into(),
        },
    }
}

/// A connection to `address`, made now.
pub(crate) async fn connect(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?.connect().await
}

/// A client of the shared Convoy.
pub(crate) async fn client() -> ModelServingClient<Channel> {
    ModelServingClient::new(connect(Convoy::shared().addresses.grpc.unwrap()).await.unwrap())
}

async fn detections(request: PredictionRequest) -> Vec<Detection> {
    let answer = client().await.predict(request).await.unwrap().into_inner();
    answer.detections.into_iter().map(detection).collect()
}

#[tokio::test]
async fn base64_with_or_without_padding_and_bytes_are_the_same_image() {
    let photo = photo::bytes();
    let image = detections(PredictionRequest { image: photo.clone().into(), ..Default::default() }).await;
    for engine in
        [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::STANDARD_NO_PAD]
    {
        let image_data = engine.encode(&photo);
        let text = detections(PredictionRequest { image_data, ..Default::default() }).await;
        assert_same(&text, &image);
    }
}

#[tokio::test]
async fn the_answer_names_request_and_model() {
    let request = PredictionRequest {
        request_id: "grpc \u{1F68C} 1".to_owned(),
        user_id: "someone".to_owned(),
        model_name: "vehicle-detector".to_owned(),
        image: photo::bytes().into(),
        ..Default::default()
    };
    let answer = client().await.predict(request).await.unwrap().into_inner();
    assert_eq!(answer.request_id, "grpc \u{1F68C} 1");
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("vehicle-detector", "1"));
    assert!(answer.inference_time_ms > 0.0);

    let unnamed = PredictionRequest { image: photo::bytes().into(), ..Default::default() };
    let answer = client().await.predict(unnamed).await.unwrap().into_inner();
    assert_eq!(answer.request_id.parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_not_found() {
    let request = PredictionRequest {
        image: photo::bytes().into(),
        model_name: "no-such-model".to_owned(),
        ..Default::default()
    };
    let status = client().await.predict(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("no-such-model"), "{}", status.message());
}

#[tokio::test]
async fn it_says_that_it_is_healthy() {
    let answer = client().await.health_check(HealthCheckRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.status, "healthy");
}

#[tokio::test]
async fn grpcio_sees_health_services_and_deadlines() {
    let address = Convoy::shared().addresses.grpc.unwrap().to_string();
    let photo = photo::path();
    let photo = photo.to_str().unwrap();
    let health = python::run("model_client.py", &[&address, "health"]);
    let serving = serde_json::json!({
        "own": "healthy", "check": "SERVING", "check_service": "SERVING", "watch": "SERVING"
    });
    assert_eq!(health, serving);

    let reflected = python::run("model_client.py", &[&address, "services"]);
    let services: Vec<&str> =
        reflected["services"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for service in ["grpc.health.v1.Health", "inference.GRPCInferenceService", "model_serving.ModelServing"] {
        assert!(services.contains(&service), "{services:?}");
    }
    assert_eq!(reflected["file"], "model_serving.proto");

    let late = python::run("model_client.py", &[&address, "deadline", photo]);
    assert_eq!(late["code"], "DEADLINE_EXCEEDED");
}

/// Client libraries end a call by their own timers, which hides what the server says. Here there is no such timer.
#[tokio::test]
async fn the_server_itself_says_that_a_deadline_passed() {
    let address = Convoy::shared().addresses.grpc.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/model_serving.ModelServing/Predict"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "1u")
        .body(Full::new(message_with_image(&photo::bytes())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], (Code::DeadlineExceeded as i32).to_string().as_str());
}

/// A PredictionRequest with field 4, `image`, in gRPC's framing.
fn message_with_image(image: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(4 << 3 | 2);
    let mut length = image.len();
    while length >= 0x80 {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(image);

    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap());
    framed.put(message);
    framed.freeze()
}

#[tokio::test]
async fn its_rest_and_metrics_faces_answer() {
    let addresses = &Convoy::shared().addresses;
    for path in ["/health", "/ready"] {
        let body = rest::get(format!("http://{}{path}", addresses.http.unwrap())).await.json(200);
        assert_eq!(body["service"], "model-serving");
    }
    let metrics = rest::get(format!("http://{}/metrics", addresses.metrics.unwrap())).await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("# TYPE "), "{}", metrics.text);
}
