//! Models that preprocess by a component of their own are sent what the client sent.

use crate::rig::{PHOTO, Rig, photo_of, request};
use serde_json::json;
use service_kit::ErrorCode;
use tonic::Status;

#[tokio::test]
async fn such_a_model_gets_the_encoded_image_and_its_boxes_are_of_that() {
    let rig = Rig::new().await;
    {
        let mut model = rig.models.model();
        (model.takes_encoded, model.fit) = (true, "letterbox".to_owned());
    }
    let answer = rig.predict(&photo_of("r1", "u1")).await;
    let body = answer.assert_ok();
    assert_eq!(
        body["detections"][0]["bbox"],
        json!({"x_min": 0.25, "y_min": 0.25, "x_max": 0.75, "y_max": 0.5})
    );
    assert_eq!(body["timings_ms"]["preprocess"], 0.0);
    let model = rig.models.model();
    let (sent, _) = &model.inferences[0];
    let raw = &sent.raw_input_contents[0];
    assert_eq!(raw[..4], u32::try_from(PHOTO.len()).unwrap().to_le_bytes());
    assert_eq!(&raw[4..], PHOTO);
    assert_eq!(sent.inputs[0].name, "images");
}

#[tokio::test]
async fn a_model_that_got_a_component_is_sent_the_image_anew() {
    let rig = Rig::new().await;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.models.model().takes_encoded = true;
    rig.predict(&photo_of("r2", "u1")).await.assert_ok();
    let datatypes: Vec<_> =
        rig.models.model().inferences.iter().map(|(r, _)| r.inputs[0].datatype.clone()).collect();
    assert_eq!(datatypes, ["UINT8", "UINT8", "BYTES"]);
}

#[tokio::test]
async fn a_model_that_lost_its_component_is_sent_pixels_from_the_next_image_on() {
    let rig = Rig::new().await;
    rig.models.model().takes_encoded = true;
    rig.predict(&photo_of("r1", "u1")).await.assert_ok();
    rig.models.model().takes_encoded = false;
    for id in ["r2", "r3"] {
        rig.predict(&photo_of(id, "u1")).await.assert_ok();
    }
    let model = rig.models.model();
    let datatypes: Vec<_> = model.inferences.iter().map(|(r, _)| r.inputs[0].datatype.clone()).collect();
    // What was made of the second one was made there, by what was loaded there.
    assert_eq!(datatypes, ["BYTES", "BYTES", "UINT8"]);
    assert_eq!(model.configs, 2);
}

#[tokio::test]
async fn what_its_component_says_of_an_image_is_passed_on() {
    let rig = Rig::new().await;
    {
        let mut model = rig.models.model();
        model.takes_encoded = true;
        model.fails_with =
            Some(Status::invalid_argument("Image 0 of input `images`: The image is corrupt: x."));
    }
    let answer = rig.send(request("/predict", "image/jpeg", "no image")).await;
    answer.assert_error(400, "invalid_input", "The image is corrupt");
    assert_eq!(answer.body.get("verdict"), None);
    // gRPC has one code for both.
    let too_large =
        service_kit::status_of_image(ErrorCode::TooLarge, "It is vast.", None, Some("too_many_pixels"));
    rig.models.model().fails_with = Some(too_large);
    let answer = rig.send(request("/predict", "image/jpeg", "vast")).await;
    answer.assert_error(413, "too_large", "It is vast");
    assert_eq!(answer.body["verdict"], "too_many_pixels");
}

#[tokio::test]
async fn an_image_that_fits_into_no_message_is_too_large() {
    let rig = Rig::with(|config| config.max_image_bytes = (100 << 20).into()).await;
    rig.models.model().takes_encoded = true;
    let answer = rig.send(request("/predict", "image/jpeg", vec![0; 64 << 20])).await;
    answer.assert_error(413, "too_large", "which this model decodes itself, is larger than the limit");
    assert!(rig.models.model().inferences.is_empty());
}
