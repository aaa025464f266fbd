//! The photo's detections are the same through every interface.

use crate::fixture::{Convoy, unique};
use crate::photo::{self, Detection, assert_detections, assert_same};
use crate::{python, rest};
use convoy_proto::model_serving::PredictionRequest;

async fn through_rest(convoy: &Convoy) -> Vec<Detection> {
    let url = rest::with_query(convoy.feature("/predict"), &[("user_id", &unique("detections"))]);
    let answer = rest::send(reqwest::Method::POST, url, Some("image/jpeg"), photo::bytes()).await;
    rest::detections(&answer.json(200))
}

#[tokio::test]
async fn rest_finds_the_bus_and_the_car() {
    assert_detections(&through_rest(Convoy::shared()).await);
}

#[tokio::test]
async fn grpc_finds_what_rest_finds() {
    let convoy = Convoy::shared();
    let mut client = crate::grpc::client().await;
    let request = PredictionRequest { image: photo::bytes().into(), ..PredictionRequest::default() };
    let answer = client.predict(request).await.unwrap().into_inner();
    let found: Vec<Detection> = answer.detections.into_iter().map(crate::grpc::detection).collect();
    assert_detections(&found);
    assert_same(&found, &through_rest(convoy).await);
}

#[tokio::test]
async fn a_generated_python_client_finds_what_rest_finds() {
    let convoy = Convoy::shared();
    let address = convoy.addresses.grpc.unwrap().to_string();
    let answer = python::run("model_client.py", &[&address, "predict", photo::path().to_str().unwrap()]);
    assert_eq!(answer["request_id"], "python-1");
    assert_eq!(answer["model_name"], "vehicle-detector");
    assert_eq!(answer["model_version"], "1");
    assert!(answer["inference_time_ms"].as_f64().unwrap() > 0.0);
    let found = rest::detections(&answer);
    assert_detections(&found);
    assert_same(&found, &through_rest(convoy).await);
}
