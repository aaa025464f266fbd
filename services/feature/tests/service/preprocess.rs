//! `POST /preprocess`.

use crate::rig::{PHOTO, Rig, json_request, photo_base64, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Asserts the features of the photo against what Pillow 13.0.0 computed for it:
/// `im.convert("RGB").resize(size, Image.BICUBIC).tobytes()`, mean and population standard deviation of all bytes.
#[track_caller]
fn assert_features(features: &Value, mean: f64, deviation: f64) {
    for (key, pillow) in
        [("mean_brightness", mean), ("std_brightness", deviation), ("min_pixel", 0.0), ("max_pixel", 255.0)]
    {
        let ours = features[key].as_f64().expect(key);
        assert!((ours - pillow).abs() <= 1.0, "{key} is {ours}, Pillow has {pillow}");
    }
    assert_eq!((&features["format"], &features["mode"]), (&json!("JPEG"), &json!("RGB")));
}

#[tokio::test]
async fn the_photo_gets_pillows_features_and_a_small_jpeg() {
    let rig = Rig::new().await;
    let answer =
        rig.send(json_request("/preprocess", &json!({"image": photo_base64(), "request_id": "r 1/ü"}))).await;
    let body = answer.assert_ok();
    assert_features(&body["features"], 144.770_375, 90.855_875);
    assert_eq!((&body["features"]["width"], &body["features"]["height"]), (&json!(224), &json!(224)));
    assert_eq!(body["original"], json!({"width": 546, "height": 413, "format": "JPEG", "mode": "RGB"}));
    assert_eq!(body["request_id"], "r 1/ü");
    assert!(body["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(body.as_object().unwrap().len(), 5);

    // The JPEG is an image of the announced size, and nearly the one that was measured.
    let jpeg = body["preprocessed_image"].as_str().unwrap();
    let again = rig.send(json_request("/preprocess", &json!({"image": jpeg}))).await;
    assert_eq!(
        again.assert_ok()["original"],
        json!({"width": 224, "height": 224, "format": "JPEG", "mode": "RGB"})
    );
    let drift = |key: &str| {
        (again.body["features"][key].as_f64().unwrap() - body["features"][key].as_f64().unwrap()).abs()
    };
    assert!(drift("mean_brightness") < 1.0 && drift("std_brightness") < 2.0);
}

#[tokio::test]
async fn a_refused_image_has_its_verdict_and_what_is_no_image_none() {
    let rig = Rig::new().await;
    let answer = rig.send(json_request("/preprocess", &json!({"image": "AAAA"}))).await;
    answer.assert_error(400, "invalid_input", "image");
    assert_eq!(answer.body["verdict"], "not_an_image");
    let answer = rig.send(request("/predict", "image/png", "no image")).await;
    assert_eq!(answer.body["verdict"], "not_an_image");
    let answer = rig.send(json_request("/preprocess", &json!({"image": ""}))).await;
    answer.assert_error(400, "invalid_input", "required");
    assert_eq!(answer.body.get("verdict"), None);
}

#[tokio::test]
async fn another_size_can_be_asked_for_and_ids_may_be_left_out() {
    let rig = Rig::new().await;
    // As `base64` and MIME write it: in lines, and without padding.
    let lines: Vec<u8> = photo_base64().trim_end_matches('=').bytes().collect();
    let lines: Vec<_> = lines.chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let body = json!({"image": lines.join("\r\n"), "width": 320, "height": 100, "request_id": null});
    let answer = rig.send(json_request("/preprocess", &body)).await;
    let body = answer.assert_ok();
    assert_features(&body["features"], 144.776_573, 89.656_664);
    assert_eq!((&body["features"]["width"], &body["features"]["height"]), (&json!(320), &json!(100)));
    let id: uuid::Uuid = body["request_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 4);
}

#[tokio::test]
async fn the_limits_of_the_size_are_inclusive() {
    let rig = Rig::new().await;
    for (width, height) in [(1, 1), (4096, 1), (1, 4096)] {
        let body = json!({"image": photo_base64(), "width": width, "height": height});
        let answer = rig.send(json_request("/preprocess", &body)).await;
        let features = &answer.assert_ok()["features"];
        assert_eq!((&features["width"], &features["height"]), (&json!(width), &json!(height)));
    }
}

#[tokio::test]
async fn a_request_without_an_image_is_told_so() {
    let rig = Rig::new().await;
    for body in [
        json!({"request_id": "r1"}),
        json!({"request_id": "r1", "image": null}),
        json!({"request_id": "r1", "image": ""}),
        json!({"request_id": "r1", "image": " \n"}),
    ] {
        let answer = rig.send(json_request("/preprocess", &body)).await;
        assert_eq!(answer.status, 400);
        let expected = json!({"error": "Image data required", "code": "invalid_input", "request_id": "r1"});
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_is_wrong() {
    let rig = Rig::new().await;
    let photo = photo_base64();
    let truncated = STANDARD.encode(&PHOTO[..PHOTO.len() / 2]);
    for (body, words) in [
        (json!({"image": "https://example.test/a.jpg"}), "is not base64: byte 5"),
        (json!({"image": "aGVsbG8gd29ybGQsIHRoaXMgaXMgdGV4dA=="}), "not an image"),
        (json!({"image": truncated}), "truncated"),
        (json!({"image": 5}), "image: invalid type: integer `5`, expected a string"),
        (json!({"image": photo, "width": 0}), "width is 0; it must be a whole number between 1 and 4096"),
        (json!({"image": photo, "height": 5000}), "height is 5000"),
        (json!({"image": photo, "height": -1}), "height is -1"),
        (json!({"image": photo, "width": "wide"}), "width: invalid type: string"),
        (json!({"image": photo, "width": 22.5}), "width: invalid type: floating point"),
        (json!({"image": photo, "request_id": ""}), "request_id is empty"),
        (json!({"image": photo, "request_id": ".."}), "request_id may not be"),
        (json!({"image": photo, "request_id": "a\nb"}), "control character U+000A"),
        (json!({"image": photo, "request_id": "x".repeat(257)}), "257 bytes long"),
        (json!({"image": photo, "request_id": 7}), "request_id: invalid type"),
        (json!("image"), "invalid type: string"),
        // The fields' values in their order.
        (json!([photo, "r", 10, 10]), "must be a JSON object"),
    ] {
        rig.send(json_request("/preprocess", &body)).await.assert_error(400, "invalid_input", words);
    }
    for (text, words) in [("", "EOF"), ("{\"image\": \"", "EOF"), ("image=1", "expected value")] {
        let answer = rig.send(request("/preprocess", "application/json", text)).await;
        answer.assert_error(400, "invalid_input", words);
    }
    // After all of these the service goes on.
    rig.send(json_request("/preprocess", &json!({"image": photo}))).await.assert_ok();
}

#[tokio::test]
async fn what_is_refused_does_not_come_back_whole() {
    let rig = Rig::new().await;
    let answer = rig.send(json_request("/preprocess", &json!({"width": "w".repeat(1 << 20)}))).await;
    answer.assert_error(400, "invalid_input", "width: invalid type: string \"www");
    assert!(answer.body["error"].as_str().unwrap().len() < 2_000);
}

#[tokio::test]
async fn failures_name_the_request() {
    let rig = Rig::new().await;
    for body in [
        json!({"request_id": "r1", "image": "*"}),
        json!({"request_id": "r1", "image": photo_base64(), "width": 0}),
        json!({"request_id": "r1", "image": "aGVsbG8gd29ybGQsIHRoaXMgaXMgdGV4dA=="}),
    ] {
        assert_eq!(rig.send(json_request("/preprocess", &body)).await.body["request_id"], "r1");
    }
    // One is made where there is none.
    let answer = rig.send(json_request("/preprocess", &json!({"image": "*"}))).await;
    assert!(answer.body["request_id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{}", answer.body);
}

#[tokio::test]
async fn only_json_is_taken() {
    let rig = Rig::new().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "image/jpeg", ""] {
        let answer = rig.send(request("/preprocess", content_type, PHOTO)).await;
        answer.assert_error(415, "invalid_input", "send application/json");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_as_such() {
    let rig = Rig::with(|config| config.max_image_bytes = 100_000.into()).await;
    let answer = rig.send(json_request("/preprocess", &json!({"image": photo_base64()}))).await;
    answer.assert_ok();
    let image = STANDARD.encode(vec![0; 100_001]);
    let answer = rig.send(json_request("/preprocess", &json!({"image": image, "request_id": "r1"}))).await;
    answer.assert_error(413, "too_large", "The image is larger than the limit of 100000 bytes");
    let image = STANDARD.encode(vec![0; 1_000_000]);
    let answer = rig.send(json_request("/preprocess", &json!({"image": image}))).await;
    answer.assert_error(413, "too_large", "The request body is larger");
}
