//! Models with preprocessing components of their own, through `POST /predict`: files beside their configurations are all
//! that it takes.

use crate::fixture::{data_folder, unique, up_arguments_of};
use crate::photo::{self, assert_detections, repository};
use crate::process::Process;
use crate::rest::{self, Answer, with_query, with_segment};
use crate::toolchain::{Toolchain, componentize};
use convoy::ready_file::Addresses;
use image::imageops::FilterType;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The example of `docs/preprocessing.md`.
fn netpbm() -> Vec<u8> {
    let folder = repository().join("preprocess-wasm/examples/netpbm");
    // Beside the guest's, so that the standard library is there already.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("guest");
    let module = Toolchain::choose().unwrap().compile(&folder, "netpbm_preprocess.wasm", &target).unwrap();
    componentize(&module).unwrap()
}

/// The hostile guest of the sandbox's tests: what it does is what the image begins with.
fn hostile(folder: &Path) -> Vec<u8> {
    let read = |path: &str| fs::read_to_string(repository().join("preprocess-wasm").join(path)).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("preprocess.wit", &read("wit/preprocess.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("preprocessor")).unwrap();
    let mut module = wat::parse_str(read("host/tests/it/hostile.wat")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let path = folder.join("hostile.core.wasm");
    fs::write(&path, module).unwrap();
    componentize(&path).unwrap()
}

/// The detector, as it is and with each of the components.
fn models() -> TempDir {
    let root = data_folder();
    let detector = repository().join("models/vehicle-detector");
    let hostile = hostile(root.path());
    for (name, component) in
        [("vehicle-detector", None), ("netpbm", Some(netpbm())), ("hostile", Some(hostile))]
    {
        let folder = root.path().join("models").join(name);
        fs::create_dir_all(folder.join("1")).unwrap();
        for file in ["1/model.onnx", "labels.txt"] {
            fs::copy(detector.join(file), folder.join(file)).unwrap();
        }
        let config = fs::read_to_string(detector.join("config.pbtxt")).unwrap();
        let config = config.replace("\"vehicle-detector\"", &format!("\"{name}\""));
        fs::write(folder.join("config.pbtxt"), config).unwrap();
        if let Some(component) = component {
            fs::write(folder.join("preprocess.wasm"), component).unwrap();
        }
    }
    root
}

fn convoy(models: &Path, more: &[&str]) -> (Process, Addresses) {
    let folder = data_folder();
    let mut arguments = up_arguments_of(&models.join("models"), &folder.path().join("predictions.db"));
    // One loop is more than one thread can do beside another.
    let flags = ["--default-model=vehicle-detector", "--sandbox-timeout=1s", "--sandbox-workers=1"];
    arguments.extend(flags.iter().chain(more).map(Into::into));
    let mut process = Process::start("up", arguments, folder);
    let addresses = process.wait_ready();
    (process, addresses)
}

async fn predict(base: &str, model: &str, request_id: &str, image: Vec<u8>) -> Answer {
    let parameters = [("model", model), ("request_id", request_id), ("user_id", "own-preprocessing")];
    let url = with_query(format!("{base}/predict"), &parameters);
    rest::send(Method::POST, url, Some("image/jpeg"), image).await
}

/// The photo as a binary PPM, of the size that the model takes: the example picks the nearest pixels.
fn ppm() -> Vec<u8> {
    let photo = image::load_from_memory(&photo::bytes()).unwrap();
    let photo = photo.resize_exact(300, 300, FilterType::Triangle).into_rgb8();
    [b"P6 300 300 255\n", &photo.into_raw()[..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_used_from_configuration_alone_and_harm_only_their_own_requests() {
    let models = models();
    let (process, addresses) = convoy(models.path(), &[]);
    let base = format!("http://{}", addresses.feature.unwrap());

    // What only the model's component can read is a prediction like any other, and what it cannot read is refused.
    let id = unique("ppm");
    let body = predict(&base, "netpbm", &id, ppm()).await.json(200);
    assert_detections(&rest::detections(&body));
    assert_eq!((&body["model_name"], &body["timings_ms"]["preprocess"]), (&json!("netpbm"), &json!(0.0)));
    let results = format!("http://{}/predictions", addresses.results.unwrap());
    let stored = rest::get(with_segment(results, &id)).await.json(200);
    assert_eq!(stored["predictions"], body["detections"]);
    for (model, image) in [("netpbm", photo::bytes()), ("vehicle-detector", ppm())] {
        let sentence = predict(&base, model, &unique("other"), image).await.error(400, "invalid_input");
        assert!(sentence.contains("image"), "{model}: {sentence}");
    }

    let looping: Vec<_> = (0..3)
        .map(|_| {
            let base = base.clone();
            let id = unique("loop");
            tokio::spawn(async move { predict(&base, "hostile", &id, b"Loop".to_vec()).await })
        })
        .collect();
    for model in ["vehicle-detector", "netpbm", "vehicle-detector", "netpbm"] {
        let image = if model == "netpbm" { ppm() } else { photo::bytes() };
        let body = predict(&base, model, &unique("good"), image).await.json(200);
        assert_detections(&rest::detections(&body));
    }
    // Those that wait for the first one may have waited for as long as any image may before it was their turn.
    let mut out_of_time = 0;
    for each in looping {
        let answer = each.await.unwrap();
        if answer.status == 400 {
            let sentence = answer.error(400, "invalid_input");
            assert!(sentence.contains("longer than the 1000 ms"), "{sentence}");
            out_of_time += 1;
        } else {
            answer.error(429, "overloaded");
        }
    }
    assert!(out_of_time > 0, "one of them ran");
    let id = unique("trap");
    let secret = b"Unreachable, and a secret".to_vec();
    let sentence = predict(&base, "hostile", &id, secret).await.error(400, "invalid_input");
    assert!(sentence.contains("made the decoder fail"), "{sentence}");
    assert_logged(&process.log(), &id);
    let vast =
        predict(&base, "hostile", &unique("vast"), b"x: says that it has 60,000x60,000 pixels".to_vec())
            .await;
    assert_eq!(vast.json(413)["verdict"], "too_many_pixels");
    // Its images that do no harm are still answered: of a black one nothing is detected.
    let body = predict(&base, "hostile", &unique("fine"), b"Fine".to_vec()).await.json(200);
    assert_eq!(body["detections"], json!([]));
    let body = predict(&base, "vehicle-detector", &unique("after"), photo::bytes()).await.json(200);
    assert_detections(&rest::detections(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_and_goes_with_a_reload_of_the_version_counts_from_the_next_request_on() {
    let models = models();
    let (_process, addresses) =
        convoy(models.path(), &["--model-control-mode=explicit", "--load-model=vehicle-detector"]);
    let base = format!("http://{}", addresses.feature.unwrap());
    let component = models.path().join("models/vehicle-detector/preprocess.wasm");
    let reload = async || {
        let path = "v2/repository/models/vehicle-detector/load";
        let url = format!("http://{}/{path}", addresses.http.unwrap());
        let answer = rest::send(Method::POST, url, Some("application/json"), "{}").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    let predict = async || {
        let body = predict(&base, "vehicle-detector", &unique("reload"), photo::bytes()).await.json(200);
        assert_eq!(body["model_version"], "1");
        body
    };
    assert_detections(&rest::detections(&predict().await));

    // It makes black of a photo, and pixels that were made elsewhere would be accepted.
    fs::copy(models.path().join("models/hostile/preprocess.wasm"), &component).unwrap();
    reload().await;
    for _ in 0..2 {
        assert_eq!(predict().await["detections"], json!([]));
    }
    assert_eq!(predict().await["timings_ms"]["preprocess"], 0.0);

    fs::remove_file(&component).unwrap();
    reload().await;
    for _ in 0..2 {
        assert_detections(&rest::detections(&predict().await));
    }
}

/// Fails unless the trap was logged with the request and the image's digest, and without its bytes.
fn assert_logged(log: &str, request_id: &str) {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let digests: Vec<&Value> = lines
        .iter()
        .filter(|line| line["request_id"] == request_id && !line["image_sha256"].is_null())
        .map(|line| &line["image_sha256"])
        .collect();
    // printf 'Unreachable, and a secret' | sha256sum
    assert_eq!(digests, ["0e78d4716b41ddb71e6cb52f0eb913fa7c3233f3e5c6ebd4197e8298dc8cf60b"], "{log}");
    assert!(!log.contains("and a secret"), "{log}");
}
