//! Loading, unloading, index, statistics and their metrics, through gRPC.

use super::support::{Server, config, test_model};
use convoy_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use convoy_proto::inference::model_infer_request::InferInputTensor;
use convoy_proto::inference::model_repository_parameter::ParameterChoice;
use convoy_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelReadyRequest, ModelRepositoryParameter,
    ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    ServerMetadataRequest, ServerReadyRequest, StatisticDuration,
};
use model_serving::repository::ModelControlMode;
use service_kit::Readiness;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

type Client = GrpcInferenceServiceClient<Channel>;

/// What is sent to `lookup`, which answers 10 times it; `negated_lookup` answers -10 times it.
const INDEX: i64 = 3;

/// A repository of `lookup` models in version 1.
fn repository(models: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, config) in models {
        put_version(&root.path().join(name), 1, "lookup");
        fs::write(root.path().join(name).join("config.pbtxt"), config).unwrap();
    }
    root
}

fn put_version(model: &Path, version: u64, test_model_name: &str) {
    let folder = model.join(version.to_string());
    fs::create_dir_all(&folder).unwrap();
    fs::copy(test_model(test_model_name), folder.join("model.onnx")).unwrap();
}

/// A server that can be asked, although it need not be ready.
async fn start(root: &TempDir, mode: ModelControlMode, load_models: &[&str]) -> Server {
    let mut config = config(root.path().to_str().unwrap());
    config.control.model_control_mode = mode;
    config.control.load_models = load_models.iter().map(ToString::to_string).collect();
    config.profile_time = std::time::Duration::from_millis(1);
    let mut server = Server::start(config, Readiness::new()).await;
    server.until_listening().await;
    server
}

async fn stop(server: Server) {
    server.shutdown.stop();
    server.ended.await.unwrap().unwrap();
}

async fn index(client: &mut Client) -> Vec<String> {
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    let line = |model: &convoy_proto::inference::repository_index_response::ModelIndex| {
        format!("{} {} {} {}", model.name, model.version, model.state, model.reason)
    };
    index.models.iter().map(line).collect()
}

async fn load(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() };
    client.repository_model_load(request).await.map(|_| ())
}

async fn unload(client: &mut Client, name: &str) -> Result<(), Status> {
    let dependents = ModelRepositoryParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let request = RepositoryModelUnloadRequest {
        model_name: name.to_owned(),
        parameters: [("unload_dependents".to_owned(), dependents)].into(),
        ..Default::default()
    };
    client.repository_model_unload(request).await.map(|_| ())
}

async fn ask(client: &mut Client, model: &str) -> Result<ModelInferResponse, Status> {
    let input = InferInputTensor {
        name: "index".to_owned(),
        datatype: "INT64".to_owned(),
        shape: vec![1, 1],
        ..Default::default()
    };
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![INDEX.to_le_bytes().to_vec().into()],
        ..Default::default()
    };
    client.model_infer(request).await.map(tonic::Response::into_inner)
}

async fn is_ready(client: &mut Client, name: &str, version: &str) -> bool {
    let request = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
    client.model_ready(request).await.unwrap().into_inner().ready
}

/// The lines of the metrics that have `part`.
async fn metrics(server: &Server, part: &str) -> Vec<String> {
    let text =
        reqwest::get(format!("http://{}/metrics", server.metrics)).await.unwrap().text().await.unwrap();
    text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

#[tokio::test]
async fn models_come_and_go_on_request() {
    let root = repository(&[("a", "max_batch_size: 4"), ("b", "max_batch_size: 4")]);
    let server = start(&root, ModelControlMode::Explicit, &[]).await;
    let mut client = server.inference_client().await;
    assert!(
        client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready,
        "nothing was chosen"
    );
    assert_eq!(index(&mut client).await, ["a   ", "b   "]);
    assert_eq!(ask(&mut client, "a").await.unwrap_err().code(), Code::NotFound);

    load(&mut client, "a").await.unwrap();
    assert_eq!(index(&mut client).await, ["a 1 READY ", "b   "]);
    assert!(is_ready(&mut client, "a", "1").await && !is_ready(&mut client, "b", "").await);
    let answer = ask(&mut client, "").await.unwrap();
    assert_eq!((&*answer.model_name, &*answer.model_version), ("a", "1"), "the only one is the default");
    assert_eq!(answer.raw_output_contents[0], 30.0_f32.to_le_bytes().to_vec());
    assert!(!metrics(&server, r#"model="a",version="1""#).await.is_empty());

    unload(&mut client, "a").await.unwrap();
    assert_eq!(index(&mut client).await, ["a 1 UNAVAILABLE unloaded", "b   "]);
    assert!(!is_ready(&mut client, "a", "").await);
    // Without a default model a request must name one.
    for (name, code) in [("a", Code::NotFound), ("", Code::InvalidArgument)] {
        assert_eq!(ask(&mut client, name).await.unwrap_err().code(), code, "{name}");
    }
    assert!(metrics(&server, r#"model="a""#).await.is_empty(), "an unloaded version has no series");
    assert_eq!(load(&mut client, "c").await.unwrap_err().code(), Code::NotFound);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    for extension in ["model_repository", "model_repository(unload_dependents)", "statistics"] {
        assert!(metadata.extensions.iter().any(|other| other == extension), "{extension}");
    }
    stop(server).await;
}

#[tokio::test]
async fn without_control_loads_and_unloads_are_unavailable_and_a_broken_model_is_told() {
    let root = repository(&[("bad", "max_batch: 4"), ("good", "max_batch_size: 4")]);
    let server = start(&root, ModelControlMode::None, &[]).await;
    let mut client = server.inference_client().await;
    let lines = index(&mut client).await;
    assert!(lines[0].starts_with("bad  UNAVAILABLE ") && lines[0].contains("config.pbtxt:1: "), "{lines:?}");
    assert_eq!(lines[1], "good 1 READY ");
    let ready = RepositoryIndexRequest { ready: true, ..Default::default() };
    assert_eq!(client.repository_index(ready).await.unwrap().into_inner().models.len(), 1);
    for refused in [load(&mut client, "good").await, unload(&mut client, "good").await] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("--model-control-mode explicit"), "{status}");
    }
    assert_eq!(ask(&mut client, "good").await.unwrap().model_version, "1");
    assert_eq!(ask(&mut client, "bad").await.unwrap_err().code(), Code::Unavailable);
    // Not all that were chosen are served: the server is not ready, in every protocol.
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let mut health = HealthClient::new(server.channel().await);
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    stop(server).await;
}

#[tokio::test]
async fn without_strictness_a_server_that_is_up_is_ready() {
    let root = repository(&[("bad", "max_batch: 4")]);
    let mut config = config(root.path().to_str().unwrap());
    config.control.strict_readiness = false;
    let mut server = Server::start(config, Readiness::new()).await;
    server.until_listening().await;
    let mut client = server.inference_client().await;
    server.readiness.wait_ready().await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    while !index(&mut client).await[0].starts_with("bad  UNAVAILABLE") {
        tokio::task::yield_now().await;
    }
    assert!(server.readiness.is_ready());
    stop(server).await;
}

#[tokio::test]
async fn statistics_count_by_version_and_batch_size() {
    let root = repository(&[("m", "max_batch_size: 4 version_policy { all { } }")]);
    put_version(&root.path().join("m"), 2, "lookup");
    let server = start(&root, ModelControlMode::None, &[]).await;
    let mut client = server.inference_client().await;
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "m").await.unwrap().model_version, "2");
    }
    let statistics = |name: &str, version: &str| ModelStatisticsRequest {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    for (name, version, count) in [("", "", 2), ("m", "", 2), ("m", "1", 1)] {
        let answer = client.model_statistics(statistics(name, version)).await.unwrap().into_inner();
        assert_eq!(answer.model_stats.len(), count, "{name} {version}");
    }
    for (name, version) in [("x", ""), ("m", "3")] {
        let status = client.model_statistics(statistics(name, version)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    let answer = client.model_statistics(statistics("m", "2")).await.unwrap().into_inner();
    let of_2 = &answer.model_stats[0];
    assert_eq!((of_2.name.as_str(), of_2.version.as_str()), ("m", "2"));
    assert_eq!((of_2.inference_count, of_2.execution_count), (3, 3));
    assert!(of_2.last_inference > 1_600_000_000_000, "milliseconds since 1970");
    let stats = of_2.inference_stats.as_ref().unwrap();
    for (what, count) in [
        (&stats.success, 3),
        (&stats.fail, 0),
        (&stats.queue, 3),
        (&stats.compute_input, 3),
        (&stats.compute_infer, 3),
        (&stats.compute_output, 3),
    ] {
        assert_eq!(what.as_ref().unwrap().count, count);
    }
    let StatisticDuration { ns, .. } = stats.success.unwrap();
    assert!(ns >= stats.compute_infer.unwrap().ns && stats.compute_infer.unwrap().ns > 0);
    assert_eq!((of_2.batch_stats.len(), of_2.batch_stats[0].batch_size), (1, 1));
    assert_eq!(of_2.batch_stats[0].compute_infer.unwrap().count, 3);
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_across_a_version_change_are_all_answered_by_the_version_they_name() {
    const REQUESTS: usize = 1_000;
    let of_version = |version| if version == 1 { 30.0_f32 } else { -30.0 };
    let root = repository(&[("m", "max_batch_size: 4")]);
    let server = start(&root, ModelControlMode::Explicit, &["m"]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let changed = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..8 {
        let (asked, changed) = (Arc::clone(&asked), Arc::clone(&changed));
        let mut client = server.inference_client().await;
        callers.push(tokio::spawn(async move {
            let (mut versions, mut is_last) = (Vec::new(), false);
            while !is_last {
                // The last request of each comes after the change.
                is_last = changed.load(Ordering::SeqCst) && asked.load(Ordering::SeqCst) >= REQUESTS;
                let answer = ask(&mut client, "m").await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let version = answer.model_version.parse::<u64>().unwrap();
                let value = of_version(version).to_le_bytes();
                assert_eq!(answer.raw_output_contents[0], value.to_vec(), "another session's answer");
                versions.push(version);
            }
            versions
        }));
    }
    while asked.load(Ordering::SeqCst) < REQUESTS / 3 {
        tokio::task::yield_now().await;
    }
    put_version(&root.path().join("m"), 2, "negated_lookup");
    let mut client = server.inference_client().await;
    load(&mut client, "m").await.unwrap();
    assert!(is_ready(&mut client, "m", "2").await && !is_ready(&mut client, "m", "1").await);
    changed.store(true, Ordering::SeqCst);
    let mut all = Vec::new();
    for caller in callers {
        let versions = caller.await.unwrap();
        assert!(versions.is_sorted() && versions.last() == Some(&2), "{versions:?}");
        all.extend(versions);
    }
    assert!(all.len() >= REQUESTS && all.contains(&1));
    stop(server).await;
}

#[tokio::test]
async fn a_load_brings_its_configuration_along() {
    let root = repository(&[("m", "max_batch_size: 4")]);
    let server = start(&root, ModelControlMode::Explicit, &["*"]).await;
    let mut client = server.inference_client().await;
    let with = |config: &str| RepositoryModelLoadRequest {
        model_name: "m".to_owned(),
        parameters: [(
            "config".to_owned(),
            ModelRepositoryParameter {
                parameter_choice: Some(ParameterChoice::StringParam(config.to_owned())),
            },
        )]
        .into(),
        ..Default::default()
    };
    client.repository_model_load(with(r#"{"max_batch_size": 2}"#)).await.unwrap();
    let request = convoy_proto::inference::ModelConfigRequest { name: "m".to_owned(), ..Default::default() };
    let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!(config.max_batch_size, 2);
    let server_path = root.path().to_str().unwrap();
    for (given, part) in [
        ("{", "The parameter `config` is no configuration"),
        (r#"{"input": [{"name": "none"}]}"#, "The parameter `config`: the model file has no input `none`"),
        (
            r#"{"default_model_filename": "x.onnx"}"#,
            "The parameter `config`: default_model_filename is `x.onnx`",
        ),
        (
            r#"{"parameters": {"fit": {"string_value": "crop"}}}"#,
            "The parameter `config`: the parameter fit is for",
        ),
    ] {
        let status = client.repository_model_load(with(given)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(part), "{status}");
        assert!(!status.message().contains(server_path) && !status.message().contains("m/1"), "{status}");
    }
    // What is wrong with a file names it as it lies in the repository, wherever that is.
    std::fs::write(root.path().join("m/1/model.onnx"), "no model").unwrap();
    let status = client.repository_model_load(with("{}")).await.unwrap_err();
    assert!(status.message().contains("The model m/1/model.onnx"), "{status}");
    assert!(!status.message().contains(server_path), "{status}");
    stop(server).await;
}
