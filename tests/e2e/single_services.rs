//! The three services as three processes: what containers run.

use crate::fixture::{data_folder, model_serving_arguments};
use crate::photo::{self, assert_detections, repository};
use crate::process::Process;
use crate::rest::{self, Answer};
use convoy::ready_file::Addresses;
use reqwest::Method;
use std::ffi::OsString;
use std::net::SocketAddr;

pub(crate) fn start<const N: usize>(service: &str, flags: [(&str, OsString); N]) -> (Process, Addresses) {
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in flags {
        arguments.extend([flag.into(), value]);
    }
    if service == "model-serving" {
        arguments.extend(model_serving_arguments());
    }
    let mut process = Process::start(service, arguments, data_folder());
    let addresses = process.wait_ready();
    (process, addresses)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_predict_together_and_name_only_their_own_addresses() {
    let free = || OsString::from("127.0.0.1:0");
    let url = |address: Option<SocketAddr>| OsString::from(format!("http://{}", address.unwrap()));
    let (mut models, of_models) = start(
        "model-serving",
        [
            ("--grpc-addr", free()),
            ("--http-addr", free()),
            ("--metrics-addr", free()),
            ("--model-path", repository().join("models").into()),
        ],
    );
    let database = data_folder();
    let (mut results, of_results) = start(
        "results-service",
        [
            ("--results-addr", free()),
            ("--admin-addr", free()),
            ("--db-path", database.path().join("predictions.db").into()),
        ],
    );
    let (mut feature, of_feature) = start(
        "feature-service",
        [
            ("--feature-addr", free()),
            ("--model-serving-url", url(of_models.grpc)),
            ("--results-url", url(of_results.results)),
        ],
    );
    let names = |addresses: &Addresses| addresses.iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&of_models), ["grpc", "http", "metrics"]);
    assert_eq!(names(&of_results), ["results", "admin"]);
    assert_eq!(names(&of_feature), ["feature"]);

    let base = format!("http://{}", of_feature.feature.unwrap());
    let peers = &rest::get(format!("{base}/ready")).await.json(200)["peers"];
    assert_eq!(
        (&peers["model-serving"]["ready"], &peers["results-service"]["ready"]),
        (&true.into(), &true.into())
    );
    let predict = async || {
        rest::send(Method::POST, format!("{base}/predict"), Some("image/jpeg"), photo::bytes()).await
    };
    let answer = predict().await.json(200);
    assert_detections(&rest::detections(&answer));

    // Without the store there is no answer, and the service goes on.
    results.signal("TERM");
    assert_eq!(results.wait().code(), Some(0), "{}", results.log());
    let sentence = predict().await.error(503, "unavailable");
    assert!(sentence.contains("results-service"), "{sentence}");
    rest::get(format!("{base}/ready")).await.json(200);
    for process in [&mut feature, &mut models] {
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn model_serving_alone_has_a_limit_on_images_that_can_be_set() {
    let free = || OsString::from("127.0.0.1:0");
    let photo = photo::bytes();
    let (_process, addresses) = start(
        "model-serving",
        [
            ("--grpc-addr", free()),
            ("--http-addr", free()),
            ("--metrics-addr", free()),
            ("--model-path", repository().join("models").into()),
            ("--max-image-bytes", photo.len().to_string().into()),
        ],
    );
    let infer = async |image: Vec<u8>| {
        let url = format!("http://{}/v2/models/vehicle-detector/infer", addresses.http.unwrap());
        let request = rest::client().post(url).header("inference-header-content-length", 0).body(image);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(infer(photo.clone()).await.status, 200);
    let sentence = infer([photo, vec![0]].concat()).await.error(413, "too_large");
    assert!(sentence.contains("--max-image-bytes"), "{sentence}");
}
