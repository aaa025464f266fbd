//! An acknowledged prediction survives kill -9.

use crate::fixture::unique;
use crate::photo;
use crate::process::Process;
use crate::rest::{self, with_query, with_segment};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_survives_kill_9_right_after_its_201() {
    let (process, addresses) = Process::ready(&[]);
    let (posted, predicted) = (unique("posted"), unique("predicted"));

    let url =
        with_query(format!("http://{}/predict", addresses.feature.unwrap()), &[("request_id", &predicted)]);
    let answer = rest::send(Method::POST, url, Some("image/jpeg"), photo::bytes()).await.json(200);
    let body = json!({
        "request_id": posted, "user_id": "u", "predictions": {"a": 1}, "model_version": "1",
        "inference_time_ms": 1.5
    });
    rest::post_json(format!("http://{}/predictions", addresses.results.unwrap()), &body).await.json(201);
    let folder = process.kill();

    let mut process = Process::start_in(folder, &[]);
    let addresses = process.wait_ready();
    let stored = |id: &str| with_segment(format!("http://{}/predictions", addresses.results.unwrap()), id);
    assert_eq!(rest::get(stored(&posted)).await.json(200)["predictions"], json!({"a": 1}));
    assert_eq!(rest::get(stored(&predicted)).await.json(200)["predictions"], answer["detections"]);
}
