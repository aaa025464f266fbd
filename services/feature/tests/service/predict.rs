//! What a prediction is, and what model-serving is asked for it.

use crate::fakes::FakeModels;
use crate::rig::{Answer, Rig, json_request, photo_base64, photo_of};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use serde_json::json;
use tonic::Status;

#[tokio::test]
async fn the_answer_is_what_is_stored() {
    let rig = Rig::new().await;
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    let body = answer.assert_ok();
    let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "detections",
            "inference_time_ms",
            "model_name",
            "model_version",
            "request_id",
            "timestamp",
            "timings_ms",
            "user_id"
        ]
    );
    let expected = json!([{
        "class_name": "bus", "confidence": 0.97,
        "bbox": {"x_min": 0.25, "y_min": 0.25, "x_max": 0.75, "y_max": 0.5},
    }]);
    assert_eq!(body["detections"], expected);
    for step in ["preprocess", "inference", "store"] {
        assert!(body["timings_ms"][step].as_f64().unwrap() > 0.0, "{step} took time");
    }
    assert_eq!(body["inference_time_ms"], 8.5);

    let store = rig.results.store();
    let record = &store.records["r1"];
    for key in ["request_id", "user_id", "model_name", "model_version", "inference_time_ms", "timestamp"] {
        assert_eq!(record[key], body[key], "{key}");
    }
    assert_eq!(record["predictions"], body["detections"]);
    assert_eq!(record["content_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn the_time_is_the_records_whether_or_not_the_store_tells_it_at_once() {
    for tells in [true, false] {
        let rig = Rig::new().await;
        rig.results.store().tells_timestamp = tells;
        let answer = rig.predict(&photo_of("r1", "u1")).await;
        assert_eq!(answer.assert_ok()["timestamp"], "2020-01-01T00:00:00.000000Z");
    }
}

#[tokio::test]
async fn a_prediction_that_is_erased_at_once_is_answered_all_the_same() {
    let rig = Rig::new().await;
    rig.results.store().hides_records = true;
    let before = jiff::Timestamp::now();
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    let timestamp: jiff::Timestamp = answer.assert_ok()["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp.as_second() >= before.as_second(), "{timestamp}");
}

#[tokio::test]
async fn model_serving_gets_a_tensor_an_id_a_user_a_deadline_and_the_trace() {
    let rig = Rig::new().await;
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = json_request("/predict", &photo_of("r1", "u1"));
    request.headers_mut().insert("traceparent", TRACE.parse().unwrap());
    rig.send(request).await.assert_ok();
    let model = rig.models.model();
    let [(inference, metadata)] = model.inferences.as_slice() else { panic!("one inference") };
    assert_eq!((inference.id.as_str(), inference.model_name.as_str()), ("r1", ""));
    assert_eq!(inference.inputs[0].shape, [1, 300, 300, 3]);
    assert_eq!(inference.raw_input_contents[0].len(), 270_000);
    // Street and sky, not one colour: the pixels are an image's.
    assert!(inference.raw_input_contents[0].iter().any(|b| *b < 50));
    assert!(inference.raw_input_contents[0].iter().any(|b| *b > 200));
    assert_eq!(inference.outputs.len(), 1);
    assert_eq!(inference.outputs[0].name, "detections");
    let user = inference.parameters["user_id"].parameter_choice.as_ref().unwrap();
    assert_eq!(user, &ParameterChoice::StringParam("u1".to_owned()));
    assert_eq!(metadata.get("traceparent").unwrap(), TRACE);
    assert!(metadata.get("grpc-timeout").is_some());
    assert_eq!(rig.results.store().headers["traceparent"], TRACE);
}

#[tokio::test]
async fn a_trace_that_is_none_is_left_behind() {
    let rig = Rig::new().await;
    let mut request = json_request("/predict", &photo_of("r1", "u1"));
    request.headers_mut().insert("traceparent", "x".repeat(20_000).parse().unwrap());
    rig.send(request).await.assert_ok();
    let model = rig.models.model();
    assert!(model.inferences[0].1.get("traceparent").is_none());
    assert!(!rig.results.store().headers.contains_key("traceparent"));
}

#[tokio::test]
async fn missing_ids_are_made() {
    let rig = Rig::new().await;
    let answer = rig.predict(&json!({"image": photo_base64()})).await;
    let id = |key: &str| answer.assert_ok()[key].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(id("request_id").get_version_num(), 4);
    assert_eq!(id("user_id").get_version_num(), 5);
    assert_eq!(rig.results.store().gets, 1, "only the record's time was asked for");
}

#[tokio::test]
async fn boxes_are_of_the_image_not_of_the_tensor() {
    let rig = Rig::new().await;
    rig.models.model().fit = "letterbox".to_owned();
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    let bbox = &answer.assert_ok()["detections"][0]["bbox"];
    // 546×413 in a square: scaled to 300×227, with bars above and below; 0.25..0.5 of the square lies in it.
    let image_height = 413.0 / 546.0;
    let y = |tensor: f64| (tensor - (1.0 - image_height) / 2.0) / image_height;
    for (key, expected) in [("x_min", 0.25), ("x_max", 0.75), ("y_min", y(0.25)), ("y_max", y(0.5))] {
        let actual = bbox[key].as_f64().unwrap();
        assert!((actual - expected).abs() < 0.005, "{key} is {actual}, not {expected}");
    }
}

#[tokio::test]
async fn what_a_model_takes_is_asked_once() {
    let rig = Rig::new().await;
    for id in ["r1", "r2", "r3"] {
        rig.predict(&photo_of(id, "u1")).await.assert_ok();
    }
    let model = rig.models.model();
    assert_eq!((model.configs, model.inferences.len()), (1, 3));
}

#[tokio::test]
async fn another_version_of_a_server_that_tells_no_preprocessing_is_asked_what_it_takes() {
    let rig = Rig::new().await;
    rig.models.model().tells_preprocessing = false;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.models.model().version = "2".to_owned();
    for id in ["r2", "r3"] {
        let answer = rig.predict(&photo_of(id, "u1")).await;
        assert_eq!(answer.assert_ok()["model_version"], "2");
    }
    let model = rig.models.model();
    // It takes the same: its first answer was good.
    assert_eq!((model.configs, model.inferences.len()), (2, 3));
}

#[tokio::test]
async fn another_version_that_takes_the_image_differently_is_asked_again() {
    for tells_preprocessing in [true, false] {
        let rig = Rig::new().await;
        rig.models.model().tells_preprocessing = tells_preprocessing;
        rig.predict(&photo_of("r1", "u1")).await.assert_ok();
        {
            let mut model = rig.models.model();
            model.version = "2".to_owned();
            // The shape is the same, so it is not refused; only the answer tells.
            model.fit = "letterbox".to_owned();
        }
        let answer = rig.predict(&photo_of("r2", "u1")).await;
        assert_eq!(answer.assert_ok()["model_version"], "2");
        assert!(y_min(&answer) < 0.2, "mapped from a letterbox");
        let model = rig.models.model();
        assert_eq!((model.configs, model.inferences.len()), (2, 3));
        assert_ne!(model.inferences[1].0.raw_input_contents, model.inferences[2].0.raw_input_contents);
    }
}

/// Where the box of the answer begins, from the top: 0.25 of the photo, but of less where it was taken for a letterbox.
fn y_min(answer: &Answer) -> f64 {
    answer.assert_ok()["detections"][0]["bbox"]["y_min"].as_f64().unwrap()
}

#[tokio::test]
async fn the_same_version_loaded_with_another_preprocessing_is_asked_again() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.models.model().fit = "letterbox".to_owned();
    for id in ["r2", "r3"] {
        assert!(y_min(&rig.predict(&photo_of(id, "u1")).await) < 0.2, "mapped from a letterbox");
    }
    let model = rig.models.model();
    assert_eq!((model.configs, model.inferences.len()), (2, 4));
    assert_ne!(model.inferences[1].0.raw_input_contents, model.inferences[2].0.raw_input_contents);
}

#[tokio::test]
async fn another_version_that_takes_the_same_is_not_asked_what_it_takes() {
    let rig = Rig::new().await;
    for (id, version) in [("r1", "1"), ("r2", "2")] {
        rig.models.model().version = version.to_owned();
        assert_eq!(rig.predict(&photo_of(id, "u1")).await.assert_ok()["model_version"], version);
    }
    let model = rig.models.model();
    assert_eq!((model.configs, model.inferences.len()), (1, 2));
}

#[tokio::test]
async fn what_was_preprocessed_for_something_else_is_never_an_answer() {
    let rig = Rig::new().await;
    rig.models.model().changes_always = true;
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(503, "unavailable", "the model `detector` is being replaced");
    {
        let model = rig.models.model();
        assert_eq!((model.configs, model.inferences.len()), (2, 2), "once more, and no more");
    }
    assert_eq!(rig.results.store().posts, 0);
}

#[tokio::test]
async fn replicas_that_loaded_different_things_are_each_sent_what_they_take() {
    let other = FakeModels::start().await;
    {
        let mut model = other.model();
        (model.version, model.fit) = ("2".to_owned(), "letterbox".to_owned());
    }
    let rig = Rig::with(|config| config.model_serving_url += &format!(",{}", other.url())).await;
    for number in 0..8 {
        let answer = rig.predict(&photo_of(&format!("r{number}"), "u1")).await;
        let of_letterbox = answer.assert_ok()["model_version"] == "2";
        assert_eq!(y_min(&answer) < 0.2, of_letterbox, "{}", answer.body);
    }
    // Both were asked, so that one of them contradicted what was known of the other.
    for model in [rig.models.model(), other.model()] {
        assert!(!model.inferences.is_empty());
    }
}

#[tokio::test]
async fn a_refused_shape_is_asked_for_again_and_sent_anew() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    {
        let mut model = rig.models.model();
        model.version = "2".to_owned();
        model.size = (320, 160);
    }
    let answer = rig.predict(&photo_of("r2", "u1")).await;
    assert_eq!(answer.assert_ok()["model_version"], "2");
    let model = rig.models.model();
    let shapes: Vec<_> = model.inferences.iter().map(|(i, _)| i.inputs[0].shape.clone()).collect();
    assert_eq!(shapes, [[1, 300, 300, 3], [1, 300, 300, 3], [1, 160, 320, 3]]);
    assert_eq!(model.configs, 2);
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_passed_on() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.models.model().fails_with = Some(Status::invalid_argument("The tensor is not to my taste."));
    let answer = rig.predict(&photo_of("r2", "u1")).await;
    answer.assert_error(400, "invalid_input", "The tensor is not to my taste.");
    let model = rig.models.model();
    assert_eq!((model.configs, model.inferences.len()), (2, 2), "asked again, not sent again");
}

#[tokio::test]
async fn a_model_that_does_not_tell_its_version_is_of_the_version_that_answers() {
    let rig = Rig::new().await;
    {
        let mut model = rig.models.model();
        (model.tells_version, model.tells_preprocessing) = (false, false);
    }
    for (id, version) in [("r1", "1"), ("r2", "1"), ("r3", "2")] {
        rig.models.model().version = version.to_owned();
        rig.predict(&photo_of(id, "u1")).await.assert_ok();
    }
    assert_eq!(rig.models.model().configs, 2, "again for the new version only");
}

#[tokio::test]
async fn a_default_model_that_became_another_is_asked_what_it_takes() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    {
        let mut model = rig.models.model();
        (model.name, model.tells_preprocessing) = ("other".to_owned(), false);
    }
    assert_eq!(rig.predict(&photo_of("r2", "u1")).await.assert_ok()["model_name"], "other");
    assert_eq!(rig.models.model().configs, 2);
}

#[tokio::test]
async fn a_model_of_another_task_is_refused() {
    let rig = Rig::new().await;
    rig.models.model().task = "classification".to_owned();
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(400, "invalid_input", "The model `detector` cannot be used here");
    assert_eq!(answer.body["request_id"], "r1");
}

#[tokio::test]
async fn the_store_is_told_when_the_request_came_in() {
    let rig = Rig::new().await;
    let before = jiff::Timestamp::now();
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    let received_at = rig.results.store().records["r1"]["received_at"].as_str().unwrap().parse().unwrap();
    // The text has microseconds.
    let second = jiff::SignedDuration::from_secs(1);
    assert!(before - second < received_at && received_at <= jiff::Timestamp::now(), "{received_at}");
}

#[tokio::test]
async fn a_user_who_was_erased_meanwhile_stays_erased() {
    let rig = Rig::new().await;
    rig.results.store().has_erased = true;
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    answer.assert_error(409, "erased", "erased after this request was received");
    assert_eq!(answer.body["request_id"], "r1");
    assert!(rig.results.store().records.is_empty());
}

#[tokio::test]
async fn the_document_has_every_route() {
    let rig = Rig::new().await;
    let request = http::Request::get("/openapi.json").body(axum::body::Body::empty()).unwrap();
    let document = rig.send(request).await;
    let document = document.assert_ok();
    assert_eq!(document["openapi"], "3.1.0");
    for path in ["/predict", "/preprocess", "/ready", "/health"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let forms = document["paths"]["/predict"]["post"]["requestBody"]["content"].as_object().unwrap();
    assert!(forms.contains_key("application/json") && forms.contains_key("multipart/form-data"), "{forms:?}");
}
