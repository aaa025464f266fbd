use super::support::{Server, photo, photo_pixels};
use bytes::Bytes;
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    SystemSharedMemoryStatusRequest,
};
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
async fn who_asks_for_an_output_that_is_not_there_is_told_which_are() {
    let status = infer(request(grey(), &["detection"])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().ends_with("its outputs are `boxes`, `scores`, `detections`."), "{status}");
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
    assert_eq!(failed, [false, true, false], "{answers:?}");
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

#[tokio::test]
async fn encoded_images_take_the_place_of_a_tensor() {
    let as_bytes = |images: Vec<Bytes>| ModelInferRequest {
        inputs: vec![InferInputTensor {
            datatype: "BYTES".to_owned(),
            shape: vec![images.len() as i64, 1],
            contents: Some(InferTensorContents { bytes_contents: images, ..Default::default() }),
            ..input(1)
        }],
        raw_input_contents: vec![],
        ..request(Bytes::new(), &["detections", "boxes"])
    };
    let tensor = infer(request(photo_pixels().await, &["detections", "boxes"])).await.unwrap();
    let image = infer(as_bytes(vec![photo()])).await.unwrap();
    // This model stretches images, so fractions of the image are fractions of the tensor.
    assert_eq!(image.raw_output_contents, tensor.raw_output_contents);
    let three = infer(as_bytes(vec![photo(), photo(), photo()])).await.unwrap();
    assert_eq!(json_rows(&three.raw_output_contents[0]).len(), 3);

    let status = infer(as_bytes(vec![photo(), photo(), photo().slice(..2000)])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Image 2 of input `images`"), "{status}");
}

#[tokio::test]
async fn typed_outputs_and_echoed_parameters_come_on_request() {
    let raw = infer(request(grey(), &["boxes"])).await.unwrap();
    let parameters = [
        ("binary_data_output".to_owned(), parameter(ParameterChoice::BoolParam(false))),
        ("colour".to_owned(), parameter(ParameterChoice::Uint64Param(7))),
        // Some clients always send it; 0 is no sequence.
        ("sequence_id".to_owned(), parameter(ParameterChoice::Int64Param(0))),
        ("priority".to_owned(), parameter(ParameterChoice::Uint64Param(1))),
    ];
    let typed = ModelInferRequest { parameters: parameters.into(), ..request(grey(), &["boxes"]) };
    let typed = infer(typed).await.unwrap();
    assert!(typed.raw_output_contents.is_empty());
    let contents = typed.outputs[0].contents.as_ref().unwrap();
    let bytes: Vec<u8> = contents.fp32_contents.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(bytes, raw.raw_output_contents[0]);
    assert_eq!(typed.parameters["colour"], parameter(ParameterChoice::Uint64Param(7)));
    let mut names: Vec<_> = typed.parameters.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["colour", "inference_time_ms", "preprocessing_id", "queue_time_ms"]);

    let mut mixed = request(grey(), &["boxes", "scores"]);
    mixed.outputs[0].parameters =
        [("binary_data".to_owned(), parameter(ParameterChoice::BoolParam(false)))].into();
    assert_eq!(infer(mixed).await.unwrap_err().code(), Code::InvalidArgument);
    let sequence = [("sequence_start".to_owned(), parameter(ParameterChoice::BoolParam(true)))];
    let sequence = ModelInferRequest { parameters: sequence.into(), ..request(grey(), &["boxes"]) };
    assert!(infer(sequence).await.unwrap_err().message().contains("sequences are not supported"));
}

#[tokio::test]
async fn classification_ranks_the_values_of_each_row() {
    let scores = |classes| {
        let mut request = request([grey(), grey()].concat().into(), &["scores"]);
        request.outputs[0].parameters =
            [("classification".to_owned(), parameter(ParameterChoice::Int64Param(classes)))].into();
        request
    };
    let answer = infer(scores(2)).await.unwrap();
    assert_eq!((answer.outputs[0].datatype.as_str(), &*answer.outputs[0].shape), ("BYTES", &[2, 2][..]));
    let text = String::from_utf8_lossy(&answer.raw_output_contents[0]).into_owned();
    assert_eq!(text.matches(':').count(), 4, "value:index, and no labels: {text:?}");
    // Of all of them it takes long, and so another way.
    let all = infer(scores(i64::MAX)).await.unwrap();
    assert_eq!(all.outputs[0].shape, [2, 1917 * 80]);
    let best = u32::from_le_bytes(*all.raw_output_contents[0].first_chunk().unwrap()) as usize;
    assert_eq!(all.raw_output_contents[0][..4 + best], answer.raw_output_contents[0][..4 + best]);
    assert_eq!(infer(scores(-1)).await.unwrap_err().code(), Code::InvalidArgument);
    let mut detections = scores(1);
    detections.outputs[0].name = "detections".to_owned();
    assert_eq!(infer(detections).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_keeps_many_requests_under_way() {
    let requests: Vec<_> = (0..40)
        .map(|i| ModelInferRequest { id: i.to_string(), ..request(grey(), &["detections"]) })
        .collect();
    let mut client = Server::shared().inference_client().await;
    let answers = client.model_stream_infer(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().infer_response.unwrap()).collect().await;
    let ids: Vec<usize> = answers.iter().map(|answer| answer.id.parse().unwrap()).collect();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
    let last = parameter(ParameterChoice::BoolParam(true));
    assert!(answers.iter().all(|answer| answer.parameters["triton_final_response"] == last));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let mut client = Server::shared().inference_client().await;
    let status =
        client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("not supported"));
}
