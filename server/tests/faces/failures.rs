//! What failed requests are counted as.

use super::support::{Server, config};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::{InferParameter, ModelInferRequest, ModelStatisticsRequest};
use convoy_proto::model_serving::PredictionRequest;
use reqwest::StatusCode;
use std::time::Duration;
use tonic::Code;

const OTHER: &str = "nv_inference_request_failure{model=\"vehicle-detector\",reason=\"OTHER\",version=\"1\"}";
const REJECTED: &str =
    "nv_inference_request_failure{model=\"vehicle-detector\",reason=\"REJECTED\",version=\"1\"}";

/// An image that is none, for the detector.
fn undecodable() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "vehicle-detector".to_owned(),
        inputs: vec![InferInputTensor {
            name: "images".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![1],
            ..Default::default()
        }],
        raw_input_contents: vec![[&5_u32.to_le_bytes()[..], b"image"].concat().into()],
        ..Default::default()
    }
}

fn with(parameter: &str, choice: ParameterChoice) -> ModelInferRequest {
    let parameter = (parameter.to_owned(), InferParameter { parameter_choice: Some(choice) });
    ModelInferRequest { parameters: [parameter].into(), ..undecodable() }
}

#[tokio::test]
async fn a_request_that_fails_is_counted_once_wherever_that_was() {
    let mut config = config("models");
    config.profile_time = Duration::from_millis(50);
    let server = Server::ready(config).await;
    let mut client = server.inference_client().await;
    let cut_off = ModelInferRequest { raw_input_contents: vec![vec![9].into()], ..undecodable() };
    let wrong_shape = {
        let mut request = undecodable();
        request.inputs[0].datatype = "UINT8".to_owned();
        request
    };
    let requests = [
        // Before it is read, before it is decoded, while it is, and by the scheduler.
        cut_off,
        with("timeout", ParameterChoice::Int64Param(-1)),
        with("sequence_id", ParameterChoice::Int64Param(7)),
        undecodable(),
        wrong_shape,
    ];
    let mut failed = 0.0;
    for request in requests {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        failed += 1.0;
        assert_eq!(server.metric(OTHER).await, failed, "{request:?}");
    }
    let mut predict = server.predict_client().await;
    for image in [&b""[..], b"image"] {
        let request = PredictionRequest { image: image.into(), ..Default::default() };
        assert_eq!(predict.predict(request).await.unwrap_err().code(), Code::InvalidArgument);
        failed += 1.0;
        assert_eq!(server.metric(OTHER).await, failed, "{image:?}");
    }
    let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
    let http = reqwest::Client::new();
    for body in [r#"{"inputs": "#, r#"{"inputs": []}"#] {
        let answer = http.post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        failed += 1.0;
        assert_eq!(server.metric(OTHER).await, failed, "{body}");
    }
    let statistics =
        client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner().model_stats;
    let fail = statistics[0].inference_stats.as_ref().unwrap().fail.unwrap();
    assert_eq!((fail.count as f64, server.metric(REJECTED).await), (failed, 0.0));
}
