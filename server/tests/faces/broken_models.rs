//! Models whose instances break and cannot be made anew.

use super::support::{Server, config, test_model};
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::{ModelInferRequest, ModelReadyRequest, RepositoryIndexRequest};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use tonic::{Code, Status};

const BROKEN: &str = "convoy_instances_broken{model=\"pairs\",version=\"1\"}";

/// A server of one instance of the model that fails on rows of odd lengths, and on what a session is tried with then.
async fn server() -> (Server, TempDir, PathBuf) {
    let repository = tempfile::tempdir().unwrap();
    let file = repository.path().join("pairs/1/model.onnx");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::copy(test_model("pairs"), &file).unwrap();
    let one = "max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU }";
    fs::write(repository.path().join("pairs/config.pbtxt"), one).unwrap();
    let server = Server::ready(config(repository.path().to_str().unwrap())).await;
    (server, repository, file)
}

impl Server {
    /// Asks the model for a row of so many elements.
    async fn ask_for(&self, elements: usize) -> Result<(), Status> {
        let request = ModelInferRequest {
            model_name: "pairs".to_owned(),
            inputs: vec![InferInputTensor {
                name: "x".to_owned(),
                datatype: "FP32".to_owned(),
                shape: vec![1, elements as i64],
                ..Default::default()
            }],
            raw_input_contents: vec![vec![0; 4 * elements].into()],
            ..Default::default()
        };
        self.inference_client().await.model_infer(request).await.map(drop)
    }

    /// What all that can be asked says of the model: whether it is ready, and why not.
    async fn says(&self) -> (bool, String) {
        let mut client = self.inference_client().await;
        let name = ModelReadyRequest { name: "pairs".to_owned(), version: String::new() };
        let ready = client.model_ready(name).await.unwrap().into_inner().ready;
        let answer = reqwest::get(format!("http://{}/v2/models/pairs/ready", self.http)).await.unwrap();
        assert_eq!(answer.status(), if ready { 200 } else { 503 });
        let sentence = answer.json::<Value>().await.unwrap()["error"].as_str().unwrap_or_default().to_owned();
        let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
        let line = &index.models[0];
        assert_eq!(line.state, if ready { "READY" } else { "UNAVAILABLE" });
        assert!(sentence.contains(&line.reason), "{sentence} and {}", line.reason);
        let held = self.readiness.waiting_for().join(" ");
        assert_eq!((held.is_empty(), self.readiness.is_ready()), (ready, ready), "{held}");
        assert!(held.contains(&line.reason), "{held} and {}", line.reason);
        (ready, line.reason.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_a_working_instance_is_not_ready_until_one_works_again() {
    let (server, _repository, file) = server().await;
    server.ask_for(2).await.unwrap();
    assert_eq!((server.says().await, server.metric(BROKEN).await), ((true, String::new()), 0.0));

    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    server.ask_for(3).await.unwrap_err();
    server.until(BROKEN, |broken| broken == 1.0).await;
    let (ready, reason) = server.says().await;
    assert!(!ready && reason.contains("model.onnx"), "{reason}");
    assert_eq!(server.ask_for(2).await.unwrap_err().code(), Code::Unavailable);

    fs::rename(&away, &file).unwrap();
    server.readiness.wait_ready().await;
    server.until(BROKEN, |broken| broken == 0.0).await;
    assert_eq!(server.says().await, (true, String::new()));
    server.ask_for(2).await.unwrap();
}

/// What lies at the model's path by then may be another model. It is not taken for the one that broke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_made_anew_of_the_file_that_was_loaded_only() {
    let (server, _repository, file) = server().await;
    let original = fs::read(&file).unwrap();
    fs::copy(test_model("open"), &file).unwrap();
    server.ask_for(2).await.unwrap();
    server.ask_for(3).await.unwrap_err();
    server.until(BROKEN, |broken| broken == 1.0).await;
    let (ready, reason) = server.says().await;
    assert!(!ready && reason.contains("not what it was when the model was loaded"), "{reason}");
    assert!(reason.contains("load the model again"), "{reason}");
    assert_eq!(server.ask_for(2).await.unwrap_err().code(), Code::Unavailable);

    // The same bytes, in a new file.
    fs::remove_file(&file).unwrap();
    fs::write(&file, original).unwrap();
    server.readiness.wait_ready().await;
    server.ask_for(2).await.unwrap();
}
