//! A model with a preprocessing component of its own, which works from files alone and harms nobody else.

use super::support::{Server, config, logged, photo, workspace};
use bytes::{BufMut as _, Bytes, BytesMut};
use convoy_proto::inference::infer_parameter::ParameterChoice;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{ModelConfigRequest, ModelInferRequest, RepositoryModelLoadRequest};
use convoy_proto::model_serving::{PredictionRequest, PredictionResponse};
use model_serving::Config;
use model_serving::repository::ModelControlMode;
use sandbox::{Limits, Sandbox, SandboxConfig};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tonic::{Code, Status};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The hostile guest of the sandbox's tests: what it does is what the image begins with, and of a photo it makes black.
fn hostile() -> Vec<u8> {
    let read = |path: &str| fs::read_to_string(workspace().join("preprocess-wasm").join(path)).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("preprocess.wit", &read("wit/preprocess.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("preprocessor")).unwrap();
    let mut module = wat::parse_str(read("host/tests/it/hostile.wat")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// The detector twice: `own` with the hostile component, `shared` without one.
fn repository() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let detector = workspace().join("models/vehicle-detector");
    for name in ["own", "shared"] {
        let folder = root.path().join(name);
        fs::create_dir_all(folder.join("1")).unwrap();
        for file in ["1/model.onnx", "labels.txt"] {
            fs::copy(detector.join(file), folder.join(file)).unwrap();
        }
        let config = fs::read_to_string(detector.join("config.pbtxt")).unwrap();
        fs::write(
            folder.join("config.pbtxt"),
            config.replace("\"vehicle-detector\"", &format!("\"{name}\"")),
        )
        .unwrap();
    }
    fs::write(component(root.path()), hostile()).unwrap();
    root
}

fn component(root: &Path) -> PathBuf {
    root.join("own/preprocess.wasm")
}

fn config_of(root: &TempDir) -> Config {
    let mut config = config(root.path().to_str().unwrap());
    config.control.model_control_mode = ModelControlMode::Explicit;
    config.control.load_models = vec!["*".to_owned()];
    config.profile_time = Duration::from_millis(1);
    config
}

async fn predict(
    server: &Server,
    model: &str,
    image: Bytes,
    request_id: &str,
) -> Result<PredictionResponse, Status> {
    let request = PredictionRequest {
        model_name: model.to_owned(),
        image,
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    Ok(server.predict_client().await.predict(request).await?.into_inner())
}

async fn load(server: &Server) -> Result<(), Status> {
    let request = RepositoryModelLoadRequest { model_name: "own".to_owned(), ..Default::default() };
    server.inference_client().await.repository_model_load(request).await.map(|_| ())
}

/// What the model's configuration tells of who preprocesses.
async fn told(server: &Server, model: &str) -> String {
    parameter(server, model, "preprocessing").await
}

/// Which preprocessing it is, as the model's configuration tells.
async fn id(server: &Server, model: &str) -> String {
    parameter(server, model, "preprocessing_id").await
}

async fn parameter(server: &Server, model: &str, name: &str) -> String {
    let request = ModelConfigRequest { name: model.to_owned(), version: String::new() };
    let answer = server.inference_client().await.model_config(request).await.unwrap().into_inner();
    answer.config.unwrap().parameters[name].string_value.clone()
}

#[tokio::test]
async fn it_is_used_for_its_model_and_replaced_with_it() {
    let root = repository();
    let server = Server::ready(config_of(&root)).await;
    assert_eq!(
        (told(&server, "own").await.as_str(), told(&server, "shared").await.as_str()),
        ("model", "server")
    );

    // Of a black image nothing is detected.
    let found = async |model| predict(&server, model, photo(), "r").await.unwrap().detections.len();
    assert_eq!(found("own").await, 0);
    let expected = found("shared").await;
    assert!(expected > 0);

    // BYTES of the Open Inference Protocol go the same way.
    let mut raw = BytesMut::new();
    raw.put_u32_le(4);
    raw.put_slice(b"Fine");
    let request = ModelInferRequest {
        model_name: "own".to_owned(),
        inputs: vec![InferInputTensor {
            name: server_input(&server).await,
            datatype: "BYTES".to_owned(),
            shape: vec![1],
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor { name: "detections".to_owned(), ..Default::default() }],
        raw_input_contents: vec![raw.freeze()],
        ..Default::default()
    };
    let answer = server.inference_client().await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(&answer.raw_output_contents[0][..], b"\x02\0\0\0[]");

    // The answer tells by what it was made, as the configuration does.
    let hostile_id = id(&server, "own").await;
    assert_eq!(
        answer.parameters["preprocessing_id"].parameter_choice,
        Some(ParameterChoice::StringParam(hostile_id.clone()))
    );
    let shared_id = id(&server, "shared").await;
    assert_ne!(hostile_id, shared_id);
    load(&server).await.unwrap();
    assert_eq!(id(&server, "own").await, hostile_id, "the same again");

    // What cannot be used is refused, and what was served before still is.
    fs::write(component(root.path()), b"no component").unwrap();
    let error = load(&server).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("preprocess.wasm"), "{error}");
    assert_eq!(found("own").await, 0);
    #[cfg(unix)]
    {
        fs::remove_file(component(root.path())).unwrap();
        std::os::unix::fs::symlink("nowhere", component(root.path())).unwrap();
        let error = load(&server).await.unwrap_err();
        assert!(error.message().contains("preprocess.wasm"), "a link that leads nowhere: {error}");
        assert_eq!(found("own").await, 0);
        fs::remove_file(component(root.path())).unwrap();
    }

    fs::write(component(root.path()), sandbox::component_bytes()).unwrap();
    load(&server).await.unwrap();
    assert_eq!((found("own").await, told(&server, "own").await.as_str()), (expected, "model"));
    let embedded_id = id(&server, "own").await;
    assert!(![&hostile_id, &shared_id].contains(&&embedded_id), "another component");

    fs::remove_file(component(root.path())).unwrap();
    load(&server).await.unwrap();
    assert_eq!((found("own").await, told(&server, "own").await.as_str()), (expected, "server"));
    assert_eq!(id(&server, "own").await, shared_id, "another model that takes the same");
    server.shutdown.stop();
    server.ended.await.unwrap().unwrap();
}

async fn server_input(server: &Server) -> String {
    let request = ModelConfigRequest { name: "own".to_owned(), version: String::new() };
    let answer = server.inference_client().await.model_config(request).await.unwrap().into_inner();
    answer.config.unwrap().input[0].name.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_loops_or_traps_hurts_only_its_own_requests() {
    let root = repository();
    // More than the photo takes in all, and less than makes a test slow.
    let timeout = Duration::from_secs(1);
    let limits = Limits { timeout, ..Limits::default() };
    let sandbox = Sandbox::new(SandboxConfig { limits, workers: 1, queue: 8, component: None }).unwrap();
    let server = Server::ready_with(config_of(&root), sandbox).await;
    // More loops than the component has threads.
    let mut looping = Vec::new();
    for _ in 0..4 {
        let mut client = server.predict_client().await;
        let image = Bytes::from_static(b"Loop");
        let request =
            PredictionRequest { model_name: "own".to_owned(), image, ..PredictionRequest::default() };
        looping.push(tokio::spawn(async move { client.predict(request).await.unwrap_err() }));
    }
    for _ in 0..3 {
        assert!(!predict(&server, "shared", photo(), "good").await.unwrap().detections.is_empty());
    }
    let mut out_of_time = 0_u32;
    for each in looping {
        let error = each.await.unwrap();
        match error.code() {
            Code::InvalidArgument => {
                assert!(error.message().contains("1000 ms"), "{error}");
                out_of_time += 1;
            }
            // It waited for the others for as long as it may.
            code => assert_eq!(code, Code::ResourceExhausted, "{error}"),
        }
    }
    assert!(out_of_time > 0, "the first one waits for none");
    let error = predict(&server, "own", Bytes::from_static(b"Unreachable"), "own-trap").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("made the decoder fail"), "{error}");
    let [line] = &logged("own-trap")[..] else { panic!("one line: {:?}", logged("own-trap")) };
    assert_eq!(line["level"], "WARN", "{line}");
    // printf Unreachable | sha256sum
    assert_eq!(line["image_sha256"], "abaa46adb4e13ab2e7202ad1480a4182fde02f70e2e8ac27eb8b8dd04dc3c427");
    let images =
        async |verdict| server.metric(&format!("convoy_sandbox_images_total{{verdict=\"{verdict}\"}}")).await;
    let busy = 4.0 - f64::from(out_of_time);
    assert_eq!((images("out_of_time").await, images("busy").await), (f64::from(out_of_time), busy));
    assert_eq!(images("trapped").await, 1.0);
    assert!(!predict(&server, "shared", photo(), "after").await.unwrap().detections.is_empty());
    server.shutdown.stop();
    server.ended.await.unwrap().unwrap();
}
