use super::support::{Server, photo};
use convoy_proto::inference::{
    ModelConfigRequest, ModelMetadataRequest, ModelReadyRequest, RepositoryIndexRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
};
use convoy_proto::model_serving::PredictionRequest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

async fn get(path: &str) -> (u16, Value) {
    let response = reqwest::get(format!("http://{}{path}", Server::shared().http)).await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

#[tokio::test]
async fn grpc_describes_server_and_model() {
    let mut client = Server::shared().inference_client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.name, "convoy");

    let ready =
        |name: &str, version: &str| ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
    for (name, version, expected) in [
        ("vehicle-detector", "", true),
        ("vehicle-detector", "1", true),
        ("vehicle-detector", "7", false),
        ("x", "", false),
    ] {
        let answer = client.model_ready(ready(name, version)).await.unwrap().into_inner();
        assert_eq!(answer.ready, expected, "{name} {version}");
    }

    let model = client
        .model_metadata(ModelMetadataRequest { name: "vehicle-detector".to_owned(), version: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(model.versions, ["1"]);
    assert_eq!(model.platform, "onnxruntime_onnx");
    let input = &model.inputs[0];
    assert_eq!((input.name.as_str(), input.datatype.as_str()), ("images", "UINT8"));
    assert_eq!(input.shape, [-1, 300, 300, 3]);
    assert_eq!(model.outputs.len(), 2);

    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!(index.models.len(), 1);
    assert_eq!(
        (index.models[0].name.as_str(), index.models[0].state.as_str()),
        ("vehicle-detector", "READY")
    );
}

#[tokio::test]
async fn a_configuration_says_what_a_client_must_prepare() {
    let mut client = Server::shared().inference_client().await;
    let answer = client.model_config(ModelConfigRequest::default()).await.unwrap();
    assert_eq!(answer.metadata().get("x-convoy-model-version").unwrap(), "1");
    let config = answer.into_inner().config.unwrap();
    assert_eq!(config.name, "vehicle-detector", "an empty name is the default model");
    assert_eq!(config.input[0].dims, [300, 300, 3]);
    assert_eq!(config.parameters["task"].string_value, "detection");
    assert!(
        ["fit", "filter", "image_input", "detections_output"]
            .iter()
            .all(|key| config.parameters.contains_key(*key))
    );

    let unknown = ModelConfigRequest { name: "no-such".to_owned(), version: String::new() };
    assert_eq!(client.model_config(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let mut client = ServerReflectionClient::new(Server::shared().channel().await);
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let services: BTreeSet<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in ["model_serving.ModelServing", "inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(services.contains(service), "{service} is not in {services:?}");
    }
}

#[tokio::test]
async fn rest_describes_server_and_model() {
    assert_eq!(get("/health").await.1["service"], "model-serving");
    assert_eq!(get("/ready").await.0, 200);
    assert_eq!(get("/v2/health/live").await, (200, Value::Null));
    assert_eq!(get("/v2/health/ready").await, (200, Value::Null));
    assert_eq!(get("/v2").await.1["name"], "convoy");
    for path in ["/v2/models/vehicle-detector", "/v2/models/vehicle-detector/versions/1"] {
        let (status, model) = get(path).await;
        assert_eq!(status, 200);
        assert_eq!(
            model["inputs"],
            json!([{"name": "images", "datatype": "UINT8", "shape": [-1, 300, 300, 3]}])
        );
        assert_eq!(model["versions"], json!(["1"]));
        assert_eq!(
            get(&format!("{path}/ready")).await,
            (200, json!({"name": "vehicle-detector", "ready": true}))
        );
        assert_eq!(get(&format!("{path}/config")).await.1["input"][0]["dims"], json!([300, 300, 3]));
    }
    let (status, error) = get("/v2/models/vehicle-detector/versions/7").await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_found")));
    for path in ["/v2/models/%ff", "/v2/models/%ff/ready", "/v2/models/%ff/config"] {
        let (status, error) = get(path).await;
        assert_eq!((status, error["code"].as_str()), (400, Some("invalid_input")), "{path}");
    }
    let (status, error) = get("/v3").await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_found")));
}

#[tokio::test]
async fn metrics_count_what_was_served() {
    let server = Server::shared();
    let request = PredictionRequest { image: photo(), ..Default::default() };
    server.predict_client().await.predict(request).await.unwrap();
    // A request is counted when it has been answered.
    let counted = "nv_inference_request_success{model=\"vehicle-detector\",version=\"1\"}";
    server.until(counted, |count| count > 0.0).await;
    let response = reqwest::get(format!("http://{}/metrics", server.metrics)).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = response.text().await.unwrap();
    let value = |series: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(series))
            .unwrap_or_else(|| panic!("no {series}:\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("convoy_ready "), 1.0);
    let model = r#"{model="vehicle-detector",version="1"}"#;
    for counter in [
        "nv_inference_request_success",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_compute_infer_duration_us",
        "convoy_batch_size_rows_count",
        "convoy_queue_duration_seconds_count",
    ] {
        assert!(value(&format!("{counter}{model}")) > 0.0, "{counter}");
    }
    assert!(value(r#"convoy_sandbox_images_total{verdict="accepted"}"#) >= 1.0);
    assert!(value(&format!("nv_inference_pending_request_count{model}")) >= 0.0);
}
