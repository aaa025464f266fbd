//! feature-service's own routes: health, readiness, preprocessing.

use crate::fixture::{Convoy, data_folder};
use crate::photo;
use crate::python;
use crate::rest::{self, assert_keys, assert_recent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The most by which a feature may differ from what Pillow computes.
const TOLERANCE: f64 = 1.0;

async fn preprocess(body: Value) -> rest::Answer {
    rest::post_json(Convoy::shared().feature("/preprocess"), &body).await
}

#[tokio::test]
async fn health_is_as_documented() {
    let body = rest::get(Convoy::shared().feature("/health")).await.json(200);
    assert_keys(&body, &["status", "service", "timestamp"]);
    assert_eq!((&body["status"], &body["service"]), (&json!("healthy"), &json!("feature-service")));
    assert_recent(&body["timestamp"]);
}

#[tokio::test]
async fn readiness_lists_the_peers() {
    let body = rest::get(Convoy::shared().feature("/ready")).await.json(200);
    assert_eq!(body["ready"], true);
    for peer in ["model-serving", "results-service"] {
        assert_eq!(body["peers"][peer]["ready"], true, "{body}");
    }
}

#[tokio::test]
async fn preprocessing_answers_as_documented() {
    let image = STANDARD.encode(photo::bytes());
    let body = preprocess(json!({"image": image, "request_id": "p-1"})).await.json(200);
    assert_keys(&body, &["preprocessed_image", "features", "original", "request_id", "timestamp"]);
    assert_keys(
        &body["features"],
        &["width", "height", "format", "mode", "mean_brightness", "std_brightness", "min_pixel", "max_pixel"],
    );
    assert_eq!(body["original"], json!({"width": 546, "height": 413, "format": "JPEG", "mode": "RGB"}));
    assert_eq!(body["request_id"], "p-1");
    assert_recent(&body["timestamp"]);

    let unnamed = preprocess(json!({"image": image})).await.json(200);
    assert!(unnamed["request_id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{unnamed}");
}

#[tokio::test]
async fn features_are_those_that_pillow_computes() {
    let folder = data_folder();
    let image = STANDARD.encode(photo::bytes());
    for (width, height) in [(224, 224), (300, 100), (1000, 1200), (1, 1)] {
        let mut request = json!({"image": image});
        if (width, height) != (224, 224) {
            request["width"] = width.into();
            request["height"] = height.into();
        }
        let body = preprocess(request).await.json(200);
        let jpeg = folder.path().join(format!("{width}x{height}.jpg"));
        std::fs::write(&jpeg, STANDARD.decode(body["preprocessed_image"].as_str().unwrap()).unwrap())
            .unwrap();

        let (photo, size) = (photo::path(), [width.to_string(), height.to_string()]);
        let arguments = [photo.to_str().unwrap(), &size[0], &size[1], jpeg.to_str().unwrap()];
        let pillow = python::run("pillow_features.py", &arguments);
        for name in ["mean_brightness", "std_brightness", "min_pixel", "max_pixel"] {
            let (ours, theirs) = (body["features"][name].as_f64(), pillow["features"][name].as_f64());
            let difference = (ours.unwrap() - theirs.unwrap()).abs();
            assert!(difference <= TOLERANCE, "{name} at {width}x{height}: {ours:?}, Pillow {theirs:?}");
        }
        assert_eq!(body["original"], pillow["original"]);
        for (name, value) in [
            ("width", json!(width)),
            ("height", json!(height)),
            ("format", json!("JPEG")),
            ("mode", json!("RGB")),
        ] {
            assert_eq!(body["features"][name], value, "{name}");
            assert_eq!(pillow["jpeg"][name], value, "{name} of the JPEG");
        }
        // The JPEG is lossy, but it is the resized photo and not another picture.
        assert!(pillow["jpeg"]["difference"].as_f64().unwrap() < 8.0, "{pillow}");
    }
}

#[tokio::test]
async fn no_image_and_wrong_sizes_are_refused() {
    let sentence = preprocess(json!({"request_id": "p-2"})).await.error(400, "invalid_input");
    assert_eq!(sentence, "Image data required");
    let image = STANDARD.encode(photo::bytes());
    for size in [0, 4097] {
        for side in ["width", "height"] {
            let answer = preprocess(json!({"image": image, side: size})).await;
            let sentence = answer.error(400, "invalid_input");
            assert!(sentence.contains(side) && sentence.contains("4096"), "{sentence}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_error_shape() {
    let convoy = Convoy::shared();
    for base in [convoy.feature(""), convoy.results(""), format!("http://{}", convoy.addresses.http.unwrap())]
    {
        rest::get(format!("{base}/no/such/path")).await.error(404, "not_found");
        rest::delete(format!("{base}/health")).await.error(405, "invalid_input");
    }
}
