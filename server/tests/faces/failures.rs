//! What failed requests are counted as.

use super::support::{Server, config};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::{InferParameter, ModelInferRequest, ModelStatisticsRequest};
use convoy_proto::model_serving::PredictionRequest;
use reqwest::StatusCode;
use std::time::Duration;
use tonic::Code;

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
    let of_type = |datatype: &str| {
        let mut request = undecodable();
        request.inputs[0].datatype = datatype.to_owned();
        request
    };
    let requests = [
        // When its tensors are read, before its images are decoded, then, and by the scheduler.
        of_type("float"),
        ModelInferRequest { raw_input_contents: vec![], ..undecodable() },
        ModelInferRequest { id: "a\nb".to_owned(), ..undecodable() },
        with("user_id", ParameterChoice::StringParam("a\nb".to_owned())),
        with("timeout", ParameterChoice::Int64Param(-1)),
        with("sequence_id", ParameterChoice::Int64Param(7)),
        undecodable(),
        ModelInferRequest { raw_input_contents: vec![vec![9].into()], ..undecodable() },
        of_type("UINT8"),
    ];
    let mut failed = 0.0;
    let mut one_more_failed = async |request: &str| {
        failed += 1.0;
        assert_eq!(server.failures("vehicle-detector", "OTHER").await, failed, "{request}");
    };
    for request in requests {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        one_more_failed(&format!("{request:?}")).await;
    }
    let mut predict = server.predict_client().await;
    let image = |image: &'static [u8]| PredictionRequest { image: image.into(), ..Default::default() };
    let requests = [
        image(b""),
        image(b"image"),
        PredictionRequest { request_id: "a\nb".to_owned(), ..image(b"image") },
        PredictionRequest { user_id: "a\nb".to_owned(), ..image(b"image") },
    ];
    for request in requests {
        assert_eq!(predict.predict(request.clone()).await.unwrap_err().code(), Code::InvalidArgument);
        one_more_failed(&format!("{request:?}")).await;
    }
    let mut answers =
        client.model_stream_infer(tokio_stream::iter([undecodable()])).await.unwrap().into_inner();
    assert!(!answers.message().await.unwrap().unwrap().error_message.is_empty());
    one_more_failed("a message of a stream").await;
    let url = format!("http://{}/v2/models/vehicle-detector/infer", server.http);
    let http = reqwest::Client::new();
    for body in [r#"{"inputs": "#, r#"{"inputs": []}"#] {
        let answer = http.post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        one_more_failed(body).await;
    }
    let compressed = http.post(&url).header("content-encoding", "br").body("{}").send().await.unwrap();
    assert_eq!(compressed.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    one_more_failed("an encoding that is not known").await;
    let statistics =
        client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner().model_stats;
    let of_all = statistics[0].inference_stats.as_ref().unwrap();
    assert_eq!((of_all.fail.unwrap().count as f64, of_all.success.unwrap().count), (failed, 0));
    assert_eq!(server.failures("vehicle-detector", "REJECTED").await, 0.0);
}
