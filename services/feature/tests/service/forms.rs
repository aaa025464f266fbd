//! The forms that `POST /predict` takes, and what it refuses.

use crate::rig::{Answer, PHOTO, Rig, json_request, photo_base64, photo_of, request};
use serde_json::{Value, json};

const BOUNDARY: &str = "----convoy";

/// A form of text fields, then the photo as the file `image`, if wanted.
fn form(fields: &[(&str, &str)], image: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    if let Some(image) = image {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n\
             Content-Type: image/jpeg\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(image);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn send_form(rig: &Rig, query: &str, body: Vec<u8>) -> Answer {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    rig.send(request(&format!("/predict{query}"), &content_type, body)).await
}

#[tokio::test]
async fn all_forms_are_the_same_request() {
    let rig = Rig::new().await;
    let mut body = photo_of("r/ü 1", "u&1");
    body["model"] = json!("detector");
    let first = rig.predict(&body).await;
    first.assert_ok();
    let query = "?request_id=r%2F%C3%BC%201&user_id=u%261&model=detector";
    let fields = [("request_id", "r/ü 1"), ("csrf", "x"), ("user_id", "u&1"), ("model", "detector")];
    let others = [
        send_form(&rig, "", form(&fields, Some(PHOTO))).await,
        send_form(&rig, query, form(&[], Some(PHOTO))).await,
        send_form(&rig, query, form(&fields, Some(PHOTO))).await,
        rig.send(request(&format!("/predict{query}"), "image/jpeg", PHOTO)).await,
        rig.send(request(&format!("/predict{query}"), "Application/Octet-Stream", PHOTO)).await,
        rig.predict(&body).await,
    ];
    // The same content: each is known as the first one again.
    for other in others {
        assert_eq!(without_timings(other.assert_ok()), without_timings(&first.body));
    }
    assert_eq!(rig.results.store().records.len(), 1);
}

fn without_timings(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove("timings_ms").expect("every answer has timings");
    body
}

#[tokio::test]
async fn each_form_is_enough_for_a_prediction_of_its_own() {
    let rig = Rig::new().await;
    let answers = [
        rig.predict(&json!({"image": photo_base64(), "model": ""})).await,
        send_form(&rig, "", form(&[("model", "")], Some(PHOTO))).await,
        rig.send(request("/predict", "image/png", PHOTO)).await,
    ];
    for answer in &answers {
        assert_eq!(answer.assert_ok()["detections"][0]["class_name"], "bus");
    }
    assert_eq!(rig.results.store().records.len(), 3, "made ids are new each time");
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let rig = Rig::new().await;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "video/mp4", "multipart/mixed", ""]
    {
        let answer = rig.send(request("/predict", content_type, PHOTO)).await;
        answer.assert_error(415, "invalid_input", "multipart/form-data");
    }
    let nothing = http::Request::post("/predict").body(PHOTO.into()).unwrap();
    rig.send(nothing).await.assert_error(415, "invalid_input", "The request has no Content-Type");
}

#[tokio::test]
async fn bad_forms_and_queries_are_refused_with_what_is_wrong() {
    let rig = Rig::new().await;
    let photo = Some(PHOTO);
    for (query, body, words) in [
        ("", form(&[("request_id", "r")], None), "Image data required"),
        ("", form(&[], Some(b"")), "Image data required"),
        ("", form(&[("image", "text")], photo), "the field image twice"),
        ("", form(&[("user_id", "a"), ("user_id", "a")], photo), "the field user_id twice"),
        ("", form(&[("request_id", "")], photo), "request_id is empty"),
        ("", form(&[("model", "a\tb")], photo), "model has the control character"),
        ("?user_id=b", form(&[("user_id", "a")], photo), "user_id is given twice"),
        ("?user_id=b&user_id=c", form(&[], photo), "duplicate field `user_id`"),
        ("?request_id=", form(&[], photo), "request_id is empty"),
        ("", b"no form".to_vec(), "multipart form cannot be read"),
        ("", form(&[], photo)[..5_000].to_vec(), "multipart form cannot be read"),
    ] {
        send_form(&rig, query, body).await.assert_error(400, "invalid_input", words);
    }
    let answer = rig.send(request("/predict", "multipart/form-data", form(&[], photo))).await;
    answer.assert_error(400, "invalid_input", "boundary");
    let array = json!([photo_base64(), "r", "u", ""]);
    rig.predict(&array).await.assert_error(400, "invalid_input", "must be a JSON object");
    let model = rig.models.model();
    assert_eq!((model.configs, model.inferences.len()), (0, 0), "none of these asked for a model");
}

#[tokio::test]
async fn bad_images_never_reach_a_model_or_the_store() {
    let rig = Rig::new().await;
    for body in [json!({}), json!({"image": null}), json!({"image": ""})] {
        rig.predict(&body).await.assert_error(400, "invalid_input", "Image data required");
    }
    rig.predict(&json!({"image": "%%%%"})).await.assert_error(400, "invalid_input", "image is not base64");
    let raw = |bytes: &'static [u8]| request("/predict?request_id=r1", "image/jpeg", bytes);
    for (bytes, words) in [
        (&b""[..], "Image data required"),
        (&b"GET / HTTP/1.1 and so on, which is no picture"[..], "not an image"),
        (&PHOTO[..PHOTO.len() / 2], "truncated"),
    ] {
        let answer = rig.send(raw(bytes)).await;
        answer.assert_error(400, "invalid_input", words);
        assert_eq!(answer.body["request_id"], "r1");
    }
    assert!(rig.models.model().inferences.is_empty());
    assert_eq!(rig.results.store().posts, 0);
}

#[tokio::test]
async fn limits_hold_in_every_form() {
    let rig = Rig::with(|config| config.max_image_bytes = 1_000.into()).await;
    let image = vec![0; 1_001];
    let answers = [
        rig.send(json_request("/predict", &json!({"image": "AAAA".repeat(400)}))).await,
        send_form(&rig, "", form(&[], Some(&image))).await,
        send_form(&rig, "", form(&[], Some(&vec![0; 100_000]))).await,
        rig.send(request("/predict", "image/jpeg", image)).await,
    ];
    for answer in answers {
        answer.assert_error(413, "too_large", "is larger than the limit of");
    }
}
