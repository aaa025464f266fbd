//! Bad input over REST gets a 4xx with a sentence that says what is wrong, and the services go on.

use crate::fixture::{Convoy, PATIENCE, unique};
use crate::photo;
use crate::rest::{self, with_query};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoy::cli::{Cli, Command};
use convoy::supervise::Program as _;
use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;
use std::ffi::OsString;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// 200 MiB, of which only one is in memory.
fn endless_zeros() -> Body {
    let mebibyte = Bytes::from(vec![0_u8; 1 << 20]);
    Body::wrap_stream(stream::iter((0..200).map(move |_| Ok::<_, io::Error>(mebibyte.clone()))))
}

async fn assert_goes_on() {
    let url = with_query(Convoy::shared().feature("/predict"), &[("user_id", &unique("goes-on"))]);
    rest::send(Method::POST, url, Some("image/jpeg"), photo::bytes()).await.json(200);
}

#[tokio::test]
async fn what_is_no_image_is_refused_in_every_form() {
    let convoy = Convoy::shared();
    let photo = photo::bytes();
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty", b"", "image data required"),
        ("text", b"This is no image.", "not an image"),
        ("cut in its data", &photo[..photo.len() / 2], "truncated"),
        ("cut in its header", &photo[..20], "truncated"),
        ("a header only", b"\x89PNG\r\n\x1a\n", "truncated"),
    ];
    for (what, image, expected) in cases {
        let raw =
            rest::send(Method::POST, convoy.feature("/predict"), Some("image/jpeg"), image.to_vec()).await;
        let mut answers = vec![raw];
        let body = json!({"image": STANDARD.encode(image), "request_id": "bad"});
        // An empty text is no image data at all, which has a sentence of its own.
        if !image.is_empty() {
            for path in ["/predict", "/preprocess"] {
                answers.push(rest::post_json(convoy.feature(path), &body).await);
            }
        }
        for answer in answers {
            let sentence = answer.error(400, "invalid_input").to_lowercase();
            assert!(sentence.contains(expected) || sentence.contains("corrupt"), "{what}: {sentence}");
        }
    }
    assert_goes_on().await;
}

#[tokio::test]
async fn what_is_not_base64_or_not_the_json_asked_for_is_refused() {
    let convoy = Convoy::shared();
    for path in ["/predict", "/preprocess"] {
        let url = || convoy.feature(path);
        let sentence = rest::post_json(url(), &json!({"image": "https://example.test/a.jpg"}))
            .await
            .error(400, "invalid_input");
        assert!(sentence.contains("base64"), "{sentence}");
        for body in [json!({"image": 7}), json!([]), json!("text"), json!({"image": {"url": "x"}})] {
            rest::post_json(url(), &body).await.error(400, "invalid_input");
        }
        let sentence = rest::post_json(url(), &json!({})).await.error(400, "invalid_input");
        assert_eq!(sentence, "Image data required");
        for text in ["", "{", "{\"image\": \"AAAA\"", "\u{0}"] {
            let answer = rest::send(Method::POST, url(), Some("application/json"), text).await;
            answer.error(400, "invalid_input");
        }
        for content_type in [None, Some("text/plain"), Some("application/xml")] {
            let answer = rest::send(Method::POST, url(), content_type, photo::bytes()).await;
            let sentence = answer.error(415, "invalid_input");
            assert!(sentence.contains("Content-Type"), "{sentence}");
        }
    }
    assert_goes_on().await;
}

#[tokio::test]
async fn broken_forms_are_refused() {
    let url = || Convoy::shared().feature("/predict");
    let form = "multipart/form-data; boundary=limit";
    let bodies = [
        (
            "no image in it",
            "--limit\r\nContent-Disposition: form-data; name=\"user_id\"\r\n\r\nu\r\n--limit--\r\n",
        ),
        ("cut off", "--limit\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nabc"),
        ("no form at all", "hello"),
    ];
    for (what, body) in bodies {
        let answer = rest::send(Method::POST, url(), Some(form), body).await;
        assert!(!answer.error(400, "invalid_input").is_empty(), "{what}");
    }
    let answer = rest::send(Method::POST, url(), Some("multipart/form-data"), "x").await;
    assert!(answer.status.is_client_error(), "a form without its boundary: {}", answer.text);
    assert_goes_on().await;
}

#[tokio::test]
async fn ids_that_break_paths_and_logs_are_refused() {
    let long = "x".repeat(257);
    for id in ["", ".", "..", "a\nb", "a\u{0}b", &long] {
        for field in ["request_id", "user_id"] {
            let url = with_query(Convoy::shared().feature("/predict"), &[(field, id)]);
            let answer = rest::send(Method::POST, url, Some("image/jpeg"), photo::bytes()).await;
            let sentence = answer.error(400, "invalid_input");
            assert!(sentence.contains(field), "{sentence}");

            let mut body = json!({
                "request_id": unique("r"), "user_id": "u", "predictions": [], "model_version": "1",
                "inference_time_ms": 1
            });
            body[field] = json!(id);
            let answer = rest::post_json(Convoy::shared().results("/predictions"), &body).await;
            let sentence = answer.error(400, "invalid_input");
            assert!(sentence.contains(field), "{sentence}");
        }
    }
    assert_goes_on().await;
}

#[tokio::test]
async fn results_service_refuses_what_is_no_prediction() {
    let url = || Convoy::shared().results("/predictions");
    for text in ["", "{", "7", "{\"request_id\": 7}"] {
        rest::send(Method::POST, url(), Some("application/json"), text).await.error(400, "invalid_input");
    }
    let answer = rest::send(Method::POST, url(), Some("text/plain"), "{}").await;
    answer.error(415, "invalid_input");
    let base = json!({"request_id": unique("r"), "user_id": "u", "predictions": [], "model_version": "1", "inference_time_ms": 1});
    for (field, wrong) in [
        ("request_id", json!(7)),
        ("user_id", json!(null)),
        ("model_version", json!(1)),
        ("inference_time_ms", json!("fast")),
    ] {
        let mut body = base.clone();
        body[field] = wrong;
        let sentence = rest::post_json(url(), &body).await.error(400, "invalid_input");
        assert!(sentence.contains(field), "{sentence}");
    }
    assert_goes_on().await;
}

#[tokio::test]
async fn a_body_of_200_mib_is_too_large_everywhere() {
    let convoy = Convoy::shared();
    let targets = [
        (convoy.feature("/predict"), "image/jpeg"),
        (convoy.feature("/predict"), "application/json"),
        (convoy.feature("/predict"), "multipart/form-data; boundary=limit"),
        (convoy.feature("/preprocess"), "application/json"),
        (convoy.results("/predictions"), "application/json"),
    ];
    for (url, content_type) in targets {
        let answer = rest::send(Method::POST, url, Some(content_type), endless_zeros()).await;
        answer.error(413, "too_large");
    }
    assert_goes_on().await;
}

/// A feature-service alone, whose requests may take half a second.
#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_others_are_served_meanwhile() {
    let arguments = [
        "convoy",
        "feature-service",
        "--feature-addr",
        "127.0.0.1:0",
        "--request-timeout",
        "500ms",
        "--model-serving-url",
        "http://127.0.0.1:1",
        "--results-url",
        "http://127.0.0.1:1",
    ];
    let cli = Cli::read(arguments.map(OsString::from)).unwrap().unwrap();
    let Command::FeatureService(service) = cli.command else { panic!("another command") };
    let fleet = service.start().await.unwrap();
    let address = fleet.addresses().feature.unwrap();

    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"POST /preprocess HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        .await
        .unwrap();
    rest::get(format!("http://{address}/health")).await.json(200);

    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"}") {
            assert_ne!(slow.read_buf(&mut answer).await.unwrap(), 0, "closed without an answer");
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("did not arrive within 500 ms") && answer.contains("\"invalid_input\""),
        "{answer}"
    );

    // Peers that are not there make it neither unready nor hang.
    let ready = rest::get(format!("http://{address}/ready")).await.json(200);
    assert_eq!(ready["peers"]["model-serving"]["ready"], false, "{ready}");
    let answer =
        rest::send(Method::POST, format!("http://{address}/predict"), Some("image/jpeg"), photo::bytes())
            .await;
    answer.error(503, "unavailable");
    fleet.stop(std::time::Duration::ZERO, PATIENCE).await.unwrap();
}
