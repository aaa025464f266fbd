use super::support::{Server, photo, sandbox};
use bytes::Bytes;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, RepositoryModelLoadRequest,
};
use sandbox::{Filter, Fit, Resize};
use serde_json::Value;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

const ROW_BYTES: usize = 300 * 300 * 3;

fn input(rows: i64) -> InferInputTensor {
    InferInputTensor {
        name: "images".to_owned(),
        datatype: "UINT8".to_owned(),
        shape: vec![rows, 300, 300, 3],
        ..Default::default()
    }
}

fn wanting(names: &[&str]) -> Vec<InferRequestedOutputTensor> {
    names
        .iter()
        .map(|name| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() })
        .collect()
}

fn request(pixels: Bytes, outputs: &[&str]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "vehicle-detector".to_owned(),
        id: "infer-7".to_owned(),
        inputs: vec![input((pixels.len() / ROW_BYTES) as i64)],
        outputs: wanting(outputs),
        raw_input_contents: vec![pixels],
        ..Default::default()
    }
}

fn grey() -> Bytes {
    vec![127; ROW_BYTES].into()
}

async fn photo_pixels() -> Bytes {
    let resize = Resize { width: 300, height: 300, fit: Fit::Stretch, filter: Filter::Bilinear };
    sandbox().tensor(photo(), resize, None).await.unwrap().pixels.into()
}

async fn infer(request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    Server::shared().inference_client().await.model_infer(request).await.map(tonic::Response::into_inner)
}

/// The elements of a BYTES tensor as JSON.
fn json_rows(mut data: &[u8]) -> Vec<Value> {
    let mut rows = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let (row, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        rows.push(serde_json::from_slice(row).unwrap());
        data = rest;
    }
    rows
}

#[tokio::test]
async fn detections_alone_come_as_json_for_each_row() {
    let two = [photo_pixels().await, grey()].concat().into();
    let answer = infer(request(two, &["detections"])).await.unwrap();
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("vehicle-detector", "1"));
    assert_eq!(answer.id, "infer-7");
    assert_eq!(answer.outputs.len(), 1);
    let output = &answer.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str()), ("detections", "BYTES"));
    assert_eq!(output.shape, [2]);
    let rows = json_rows(&answer.raw_output_contents[0]);
    assert_eq!(rows[0][0]["class_name"], "bus");
    assert!(rows[0][0]["confidence"].as_f64().unwrap() > 0.9);
    assert!(rows[0][0]["bbox"]["x_max"].as_f64().unwrap() <= 1.0);
    assert_eq!(rows[1], serde_json::json!([]), "nothing is in a grey image");
    for name in ["inference_time_ms", "queue_time_ms"] {
        let Some(ParameterChoice::DoubleParam(ms)) = answer.parameters[name].parameter_choice else {
            panic!("{name} is no number: {:?}", answer.parameters)
        };
        assert!(ms >= 0.0);
    }
}

#[tokio::test]
async fn outputs_come_as_asked_for() {
    let all = infer(request(grey(), &[])).await.unwrap();
    let names: Vec<_> = all.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["boxes", "scores"], "detections only on request");
    assert_eq!(all.outputs[1].shape, [1, 1917, 80]);
    assert_eq!(all.raw_output_contents[1].len(), 1917 * 80 * 4);

    let some = infer(request(grey(), &["scores", "detections"])).await.unwrap();
    let names: Vec<_> = some.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["scores", "detections"]);
    assert_eq!(some.raw_output_contents[0], all.raw_output_contents[1]);
}

#[tokio::test]
async fn typed_contents_give_the_same_as_raw_ones() {
    let raw = request(photo_pixels().await, &["detections"]);
    let contents = InferTensorContents {
        uint_contents: raw.raw_input_contents[0].iter().copied().map(u32::from).collect(),
        ..Default::default()
    };
    let typed = ModelInferRequest {
        inputs: vec![InferInputTensor { contents: Some(contents), ..input(1) }],
        raw_input_contents: vec![],
        ..raw.clone()
    };
    let (raw, typed) = (infer(raw).await.unwrap(), infer(typed).await.unwrap());
    assert_eq!(raw.raw_output_contents, typed.raw_output_contents);
}

#[tokio::test]
async fn what_does_not_fit_the_model_is_an_invalid_argument() {
    let fine = request(grey(), &["detections"]);
    let with_shape = |shape: &[i64]| ModelInferRequest {
        inputs: vec![InferInputTensor { shape: shape.to_vec(), ..input(1) }],
        ..fine.clone()
    };
    let text =
        |text: &str| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())) };
    let cases = [
        with_shape(&[1, 224, 224, 3]),
        with_shape(&[300, 300, 3]),
        with_shape(&[2, 300, 300, 3]),
        with_shape(&[9, 300, 300, 3]),
        ModelInferRequest { inputs: vec![], raw_input_contents: vec![], ..fine.clone() },
        ModelInferRequest { outputs: wanting(&["no-such"]), ..fine.clone() },
        ModelInferRequest { outputs: wanting(&["detections", "no-such"]), ..fine.clone() },
        ModelInferRequest { outputs: wanting(&["boxes", "boxes"]), ..fine.clone() },
        ModelInferRequest { id: "a\u{7}".to_owned(), ..fine.clone() },
        ModelInferRequest { parameters: [("user_id".to_owned(), text("a\nb"))].into(), ..fine.clone() },
        ModelInferRequest { parameters: [("timeout".to_owned(), text("soon"))].into(), ..fine.clone() },
        ModelInferRequest {
            inputs: vec![InferInputTensor { name: "pictures".to_owned(), ..input(1) }],
            ..fine.clone()
        },
    ];
    for (i, request) in cases.into_iter().enumerate() {
        let status = infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "case {i}: {status}");
        assert!(status.message().ends_with('.'), "case {i} is no sentence: {status}");
    }
    infer(fine).await.unwrap();
}

#[tokio::test]
async fn an_unknown_model_or_version_is_not_found() {
    let fine = request(grey(), &[]);
    let unknown = ModelInferRequest { model_name: "no-such".to_owned(), ..fine.clone() };
    assert_eq!(infer(unknown).await.unwrap_err().code(), Code::NotFound);
    let unknown = ModelInferRequest { model_version: "7".to_owned(), ..fine };
    assert_eq!(infer(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_timeout_parameter_is_a_deadline() {
    let one = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1)) };
    let hasty = ModelInferRequest {
        parameters: [("timeout".to_owned(), one)].into(),
        ..request(grey(), &["detections"])
    };
    assert_eq!(infer(hasty).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stream_answers_in_order_and_survives_a_bad_request() {
    let named = |id: &str, request: ModelInferRequest| ModelInferRequest { id: id.to_owned(), ..request };
    let fine = request(grey(), &["detections"]);
    let requests = vec![
        named("1", fine.clone()),
        named("2", ModelInferRequest { outputs: wanting(&["no-such"]), ..fine.clone() }),
        named("3", fine),
    ];
    let mut client = Server::shared().inference_client().await;
    let answers = client.model_stream_infer(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let ids: Vec<_> =
        answers.iter().map(|answer| answer.infer_response.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    let failed: Vec<_> = answers.iter().map(|answer| !answer.error_message.is_empty()).collect();
    assert_eq!(failed, [false, true, false]);
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let mut client = Server::shared().inference_client().await;
    let status = client.repository_model_load(RepositoryModelLoadRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("not supported"));
}
