//! `POST /predict`: image to stored prediction, in all three forms.

use crate::fixture::{Convoy, unique};
use crate::photo::{self, assert_detections};
use crate::rest::{self, Answer, assert_keys, assert_recent, with_query, with_segment};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

async fn predict_json(body: Value) -> Answer {
    rest::post_json(Convoy::shared().feature("/predict"), &body).await
}

async fn predict_raw(query: &[(&str, &str)], image: Vec<u8>) -> Answer {
    let url = with_query(Convoy::shared().feature("/predict"), query);
    rest::send(Method::POST, url, Some("image/jpeg"), image).await
}

async fn predict_multipart(fields: &[(&str, &str)], image: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .as_bytes(),
        );
    }
    body.extend_from_slice(
        b"--limit\r\nContent-Disposition: form-data; name=\"image\"; filename=\"bus.jpg\"\r\n\
          Content-Type: image/jpeg\r\n\r\n",
    );
    body.extend_from_slice(image);
    body.extend_from_slice(b"\r\n--limit--\r\n");
    let url = Convoy::shared().feature("/predict");
    rest::send(Method::POST, url, Some("multipart/form-data; boundary=limit"), body).await
}

async fn stored(request_id: &str) -> Answer {
    rest::get(with_segment(Convoy::shared().results("/predictions"), request_id)).await
}

fn rows(request_id: &str) -> Vec<(String, String)> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(&Convoy::shared().database, flags).unwrap();
    let mut query =
        database.prepare("SELECT user_id, predictions FROM predictions WHERE request_id = ?1").unwrap();
    let found = query.query_map([request_id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.map(Result::unwrap).collect()
}

#[tokio::test]
async fn the_three_forms_answer_alike() {
    let image = photo::bytes();
    let user = unique("forms");
    let ids = [unique("json"), unique("multipart"), unique("raw")];
    let model = "vehicle-detector";
    let answers = [
        predict_json(json!({
            "image": STANDARD.encode(&image), "request_id": ids[0], "user_id": user, "model": model
        }))
        .await,
        predict_multipart(&[("request_id", &ids[1]), ("user_id", &user), ("model", model)], &image).await,
        predict_raw(&[("request_id", &ids[2]), ("user_id", &user), ("model", model)], image).await,
    ];
    let bodies = answers.map(|answer| answer.json(200));
    for (body, id) in bodies.iter().zip(&ids) {
        assert_keys(
            body,
            &[
                "request_id",
                "user_id",
                "model_name",
                "model_version",
                "detections",
                "inference_time_ms",
                "timings_ms",
                "timestamp",
            ],
        );
        assert_keys(&body["timings_ms"], &["preprocess", "inference", "store"]);
        assert_eq!((&body["request_id"], &body["user_id"]), (&json!(id), &json!(user)));
        assert_eq!((&body["model_name"], &body["model_version"]), (&json!(model), &json!("1")));
        assert!(body["inference_time_ms"].as_f64().unwrap() > 0.0);
        assert!(body["timings_ms"].as_object().unwrap().values().all(|ms| ms.as_f64().unwrap() >= 0.0));
        assert_recent(&body["timestamp"]);
        assert_detections(&rest::detections(body));
        assert_eq!(body["detections"], bodies[0]["detections"]);
    }
}

#[tokio::test]
async fn a_prediction_is_in_sqlite_is_shown_and_is_erased() {
    let (id, user) = (unique("stored"), unique("ü user/7"));
    let answer = predict_raw(&[("request_id", &id), ("user_id", &user)], photo::bytes()).await.json(200);

    let found = rows(&id);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, user);
    let in_database: Value = serde_json::from_str(&found[0].1).unwrap();
    assert_eq!(in_database, answer["detections"]);

    let shown = stored(&id).await.json(200);
    assert_eq!(shown["predictions"], answer["detections"]);
    for (name, of_answer) in
        [("user_id", "user_id"), ("model_version", "model_version"), ("model_name", "model_name")]
    {
        assert_eq!(shown[name], answer[of_answer], "{name}");
    }

    let url = with_segment(Convoy::shared().results("/predictions/user"), &user);
    assert_eq!(rest::delete(url).await.json(200)["deleted_count"], 1);
    stored(&id).await.error(404, "not_found");
    assert!(rows(&id).is_empty());
}

#[tokio::test]
async fn the_same_request_again_gives_the_same_answer_and_one_row() {
    let (id, user) = (unique("again"), unique("u"));
    let query = [("request_id", id.as_str()), ("user_id", user.as_str())];
    let first = predict_raw(&query, photo::bytes()).await.json(200);
    let mut again = vec![predict_raw(&query, photo::bytes()).await.json(200)];
    // Another form of the same request is the same request.
    let body = json!({"image": STANDARD.encode(photo::bytes()), "request_id": id, "user_id": user});
    again.push(predict_json(body).await.json(200));
    for answer in again {
        for name in [
            "request_id",
            "user_id",
            "model_name",
            "model_version",
            "detections",
            "inference_time_ms",
            "timestamp",
        ] {
            assert_eq!(answer[name], first[name], "{name}");
        }
    }
    assert_eq!(rows(&id).len(), 1);
}

#[tokio::test]
async fn the_same_id_with_anything_else_is_refused() {
    let (id, user) = (unique("conflict"), unique("u"));
    let query = [("request_id", id.as_str()), ("user_id", user.as_str())];
    predict_raw(&query, photo::bytes()).await.json(200);

    let mut other_image = photo::bytes();
    other_image.extend_from_slice(b"trailing bytes that no decoder minds");
    predict_raw(&query, other_image).await.error(409, "already_exists");
    let stranger = unique("stranger");
    let refused = predict_raw(&[("request_id", &id), ("user_id", &stranger)], photo::bytes()).await;
    refused.error(409, "already_exists");
    assert!(!refused.text.contains(&user) && !refused.text.contains("bus"), "{}", refused.text);
    // The default model by its name: which model is the default may change between a request and its repetition.
    let named = [query[0], query[1], ("model", "vehicle-detector")];
    predict_raw(&named, photo::bytes()).await.error(409, "already_exists");
    assert_eq!(rows(&id).len(), 1);
}

#[tokio::test]
async fn missing_ids_are_new_uuids() {
    let first = predict_raw(&[], photo::bytes()).await.json(200);
    let second = predict_raw(&[], photo::bytes()).await.json(200);
    for name in ["request_id", "user_id"] {
        let ids =
            [&first, &second].map(|answer| answer[name].as_str().unwrap().parse::<uuid::Uuid>().unwrap());
        assert_ne!(ids[0], ids[1], "{name}");
    }
    // A retry of a request without a user is the same request.
    let id = unique("no-user");
    let once = predict_raw(&[("request_id", &id)], photo::bytes()).await.json(200);
    let twice = predict_raw(&[("request_id", &id)], photo::bytes()).await.json(200);
    assert_eq!(once["user_id"], twice["user_id"]);
    assert_eq!(rows(&id).len(), 1);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_not_found() {
    let sentence = predict_raw(&[("model", "no-such-model")], photo::bytes()).await.error(404, "not_found");
    assert!(sentence.contains("no-such-model"), "{sentence}");
}
