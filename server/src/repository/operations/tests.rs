#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::super::{InferenceRequest, ModelRepository, ParameterValue};
use super::*;
use crate::scheduler::NoObserver;
use crate::tensor::{DataType, Shape, Tensor};
use crate::test_models;

/// What is sent to a `lookup` model, and 10 times this is what comes back, or -10 times.
const INDEX: i64 = 3;

fn config(root: &Path, control_mode: ModelControlMode, load_models: &[&str]) -> RepositoryConfig {
    RepositoryConfig {
        control_mode,
        load_models: load_models.iter().map(ToString::to_string).collect(),
        onnxruntime_lib: Some(test_models::library()),
        profile_time: Duration::from_millis(1),
        ..RepositoryConfig::new(root)
    }
}

fn open(root: &TempDir, load_models: &[&str]) -> Arc<ModelRepository> {
    let config = config(root.path(), ModelControlMode::Explicit, load_models);
    let repository = ModelRepository::open(&config, Arc::new(NoObserver)).unwrap();
    assert!(repository.load_chosen().is_empty());
    Arc::new(repository)
}

fn lookup() -> TempDir {
    test_models::repository(&[("m", "lookup", "max_batch_size: 4")])
}

fn none() -> ControlParameters {
    ControlParameters::new()
}

fn index(repository: &ModelRepository) -> Vec<String> {
    let lines = repository.index(false);
    lines
        .iter()
        .map(|line| format!("{} {} {} {}", line.name, line.version, line.state, line.reason))
        .collect()
}

async fn ask(model: &ModelVersion) -> Result<f32, ServingError> {
    let index = Tensor {
        name: "index".to_owned(),
        datatype: DataType::Int64,
        shape: Shape::from([1, 1]),
        data: INDEX.to_le_bytes().to_vec().into(),
    };
    let request = InferenceRequest { inputs: vec![index], ..InferenceRequest::default() };
    let response = model.infer(request, None).await?;
    Ok(f32::from_le_bytes((*response.outputs[0].data).try_into().unwrap()))
}

#[tokio::test]
async fn explicit_control_loads_and_unloads_what_it_is_asked_for() {
    let root = test_models::repository(&[("a", "lookup", "max_batch_size: 4"), ("b", "open", "")]);
    let repository = open(&root, &[]);
    assert_eq!(index(&repository), ["a   ", "b   "]);
    assert!(matches!(repository.get("a", ""), Err(ServingError::ModelNotFound { .. })));
    assert!(matches!(repository.get("", ""), Err(ServingError::NoDefaultModel)));

    repository.load_model("a", none()).await.unwrap();
    assert_eq!(index(&repository), ["a 1 READY ", "b   "]);
    assert_eq!(repository.index(true).len(), 1);
    assert_eq!(ask(&repository.get("", "").unwrap()).await, Ok(30.0), "the only one loaded is the default");
    repository.load_model("b", none()).await.unwrap();
    assert!(matches!(repository.get("", ""), Err(ServingError::NoDefaultModel)));
    assert_eq!(repository.statistics("", "").unwrap().len(), 2);
    let of_a = &repository.statistics("a", "1").unwrap()[0];
    assert_eq!((of_a.inference_count, of_a.execution_count, of_a.batch_stats[0].batch_size), (1, 1, 1));
    assert!(repository.statistics("c", "").is_err() && repository.statistics("a", "2").is_err());

    for _ in 0..2 {
        // The second finds nothing to do.
        repository.unload_model("a", none()).await.unwrap();
        assert_eq!(index(&repository), ["a 1 UNAVAILABLE unloaded", "b 1 READY "]);
    }
    assert!(matches!(repository.get("a", ""), Err(ServingError::ModelNotLoaded { .. })));
    assert_eq!(repository.default_model().as_deref(), Some("b"));
    repository.load_model("a", none()).await.unwrap();
    assert_eq!(repository.statistics("a", "").unwrap()[0].inference_count, 0, "counted since it was loaded");

    for name in ["", "c", "../a", "a/1", root.path().to_str().unwrap()] {
        let not_found = ServingError::ModelNotFound { name: name.to_owned() };
        assert_eq!(repository.load_model(name, none()).await, Err(not_found.clone()));
        assert_eq!(repository.unload_model(name, none()).await, Err(not_found));
    }
    assert_eq!(index(&repository).len(), 2, "a name that is none leaves no trace");
}

#[tokio::test]
async fn without_control_every_model_is_loaded_and_stays() {
    let root = lookup();
    let config = config(root.path(), ModelControlMode::None, &[]);
    let repository = ModelRepository::load(&config, Arc::new(NoObserver)).unwrap();
    for refused in [repository.load_model("m", none()).await, repository.unload_model("m", none()).await] {
        let Err(ServingError::Unavailable(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("--model-control-mode explicit"), "{text}");
    }
    assert_eq!(ask(&repository.get("m", "").unwrap()).await, Ok(30.0));
}

#[tokio::test]
async fn a_broken_model_leaves_the_others_serving_and_says_why() {
    let root = test_models::repository(&[
        ("config", "lookup", "max_batch: 4"),
        ("file", "lookup", "version_policy { all { } }"),
        ("good", "lookup", "max_batch_size: 4"),
    ]);
    fs::create_dir(root.path().join("file/2")).unwrap();
    fs::write(root.path().join("file/2/model.onnx"), "no model").unwrap();
    let config = config(root.path(), ModelControlMode::None, &[]);
    let repository = ModelRepository::open(&config, Arc::new(NoObserver)).unwrap();
    let readiness = Readiness::new();
    repository.hold_until_served(&readiness);
    assert_eq!(index(&repository), ["config  LOADING ", "file  LOADING ", "good  LOADING "]);
    let error = repository.get("good", "").err().unwrap();
    assert!(matches!(&error, ServingError::Unavailable(text) if text.contains("being loaded")), "{error}");

    let errors: Vec<String> = repository.load_chosen().iter().map(|(_, error)| error.to_string()).collect();
    assert!(errors[0].contains("config.pbtxt:1: ") && errors[1].contains("file/2/model.onnx"), "{errors:?}");
    let lines = repository.index(false);
    let states: Vec<_> = lines.iter().map(|line| (&*line.name, &*line.version, line.state)).collect();
    assert_eq!(
        states,
        [
            ("config", "", "UNAVAILABLE"),
            ("file", "2", "UNAVAILABLE"),
            ("file", "1", "READY"),
            ("good", "1", "READY")
        ]
    );
    assert_eq!((&lines[0].reason, &lines[1].reason), (&errors[0], &errors[1]));
    for name in ["good", "file"] {
        assert_eq!(ask(&repository.get(name, "").unwrap()).await, Ok(30.0));
    }
    for (name, version) in [("config", ""), ("config", "1"), ("file", "2")] {
        let error = repository.get(name, version).err().unwrap();
        assert!(
            matches!(error, ServingError::Unavailable(_) | ServingError::VersionNotFound { .. }),
            "{error}"
        );
    }
    assert_eq!(readiness.waiting_for(), ["model config", "model file"], "ready only when all chosen are");
}

#[tokio::test]
async fn readiness_waits_for_the_chosen_until_they_are_served_or_unloaded() {
    let root = test_models::repository(&[("a", "lookup", "broken"), ("b", "open", "broken")]);
    let config = config(root.path(), ModelControlMode::Explicit, &["a", "b", "c"]);
    let repository = ModelRepository::open(&config, Arc::new(NoObserver)).unwrap();
    let readiness = Readiness::new();
    repository.hold_until_served(&readiness);
    assert_eq!(repository.load_chosen().len(), 3);
    assert!(
        index(&repository)[2].contains("c  UNAVAILABLE") && index(&repository)[2].contains("no model `c`")
    );
    fs::write(root.path().join("a/config.pbtxt"), "max_batch_size: 4").unwrap();
    repository.load_model("a", none()).await.unwrap();
    assert_eq!(index(&repository)[0], "a 1 READY ");
    repository.unload_model("b", none()).await.unwrap();
    assert_eq!(readiness.waiting_for(), ["model c"]);
    repository.unload_model("c", none()).await.unwrap();
    assert!(readiness.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_across_version_changes_are_all_answered_by_the_right_version() {
    const REQUESTS: usize = 1_000;
    let root = lookup();
    let repository = open(&root, &["m"]);
    let changed = Arc::new(AtomicBool::new(false));
    // How many were answered, and the version of the last one.
    let (seen, mut progress) = tokio::sync::watch::channel((0_usize, 0_u64));
    let seen = Arc::new(seen);
    let ask_many = || {
        let (repository, changed, seen) = (Arc::clone(&repository), Arc::clone(&changed), Arc::clone(&seen));
        async move {
            let mut versions = Vec::new();
            // The last request of each comes after the last change.
            let mut is_last = false;
            while !is_last {
                is_last = changed.load(Ordering::SeqCst) && seen.borrow().0 >= REQUESTS;
                let model = repository.get("m", "").unwrap();
                let value = ask(&model).await.unwrap();
                let version: u64 = model.version().parse().unwrap();
                // Odd versions answer as the file does, even ones negated.
                assert_eq!(value, if version % 2 == 1 { 30.0 } else { -30.0 });
                versions.push(version);
                seen.send_modify(|(seen, last)| (*seen, *last) = (*seen + 1, version));
            }
            versions
        }
    };
    let callers: Vec<_> = (0..16).map(|_| tokio::spawn(ask_many())).collect();
    let model = root.path().join("m");
    for version in [2, 3, 4_u64] {
        // Each version answers before the next one comes.
        let enough = (version as usize - 1) * REQUESTS / 5;
        progress.wait_for(|&(seen, last)| seen >= enough && last == version - 1).await.unwrap();
        if version % 2 == 0 {
            test_models::add_negated_lookup(&model, version);
        } else {
            fs::create_dir(model.join(version.to_string())).unwrap();
            fs::copy(test_models::path("lookup"), model.join(format!("{version}/model.onnx"))).unwrap();
        }
        repository.load_model("m", none()).await.unwrap();
        assert_eq!(repository.get("m", "").unwrap().version(), version.to_string());
    }
    changed.store(true, Ordering::SeqCst);
    let mut all = Vec::new();
    for caller in callers {
        let versions = caller.await.unwrap();
        assert!(versions.is_sorted(), "once the new version answers, the old one is not asked any more");
        all.extend(versions);
    }
    assert!(all.len() >= REQUESTS);
    for version in 1..=4 {
        assert!(all.contains(&version), "version {version} answered nothing: no change under load");
    }
    let drained = |line: &String| line.contains(" READY") || line.contains(" UNAVAILABLE unloaded");
    let mut ends = repository.shared.work.ends();
    while !index(&repository).iter().all(drained) {
        ends.changed().await.unwrap();
    }
    assert_eq!(repository.versions().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_served_does_not_replace_what_is() {
    let root = lookup();
    let repository = open(&root, &["*"]);
    let before = repository.get("m", "").unwrap();
    for broken in [
        "max_batch: 1",
        "version_policy { specific { versions: [ 7 ] } }",
        "max_batch_size: 4 backend: \"x\"",
    ] {
        fs::write(root.path().join("m/config.pbtxt"), broken).unwrap();
        let error = repository.load_model("m", none()).await.unwrap_err();
        let ServingError::InvalidInput(text) = &error else { panic!("{error:?}") };
        assert!(text.starts_with("Model `m` cannot be loaded: "), "{text}");
    }
    fs::write(root.path().join("m/config.pbtxt"), "max_batch_size: 4 version_policy { all { } }").unwrap();
    fs::create_dir(root.path().join("m/2")).unwrap();
    repository.load_model("m", none()).await.unwrap_err();
    assert!(Arc::ptr_eq(&before, &repository.get("m", "").unwrap()));
    let lines = index(&repository);
    assert!(
        lines[0].starts_with("m 2 UNAVAILABLE") && lines[0].contains("there is no such file"),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["m 1 READY "]);
    assert_eq!(ask(&before).await, Ok(30.0));
}

#[tokio::test]
async fn a_load_brings_a_configuration_along_for_this_once() {
    let root = lookup();
    test_models::add_negated_lookup(&root.path().join("m"), 2);
    let repository = open(&root, &["m"]);
    let with = |text: &str| [("config".to_owned(), ParameterValue::String(text.to_owned()))].into();
    assert_eq!(repository.get("m", "").unwrap().version(), "2");
    let older = r#"{"max_batch_size": 2, "version_policy": {"specific": {"versions": ["1"]}}}"#;
    repository.load_model("m", with(older)).await.unwrap();
    let model = repository.get("m", "").unwrap();
    assert_eq!((model.version(), model.max_batch_size()), ("1", 2));
    assert_eq!(ask(&model).await, Ok(30.0));
    drop(model);
    for (wrong, part) in [
        ("{", "is no configuration"),
        (r#"{"max_batch_size": -1}"#, "must be 0 or more"),
        (r#"{"default_model_filename": "../../m/1/model.onnx"}"#, "must be the name of a file"),
    ] {
        let error = repository.load_model("m", with(wrong)).await.unwrap_err();
        assert!(matches!(&error, ServingError::InvalidInput(text) if text.contains(part)), "{error}");
    }
    repository.load_model("m", none()).await.unwrap();
    let model = repository.get("m", "").unwrap();
    assert_eq!((model.version(), model.max_batch_size()), ("2", 4));
}

#[tokio::test]
async fn what_an_unloaded_version_was_asked_it_answers() {
    let root = lookup();
    let repository = open(&root, &["m"]);
    // A request whose image is still being decoded holds the version.
    let held = repository.get("m", "").unwrap();
    let unload = tokio::spawn({
        let repository = Arc::clone(&repository);
        async move { repository.unload_model("m", none()).await }
    });
    while index(&repository) != ["m 1 UNLOADING "] {
        tokio::task::yield_now().await;
    }
    assert!(repository.get("m", "").is_err());
    assert_eq!(ask(&held).await, Ok(30.0));
    assert!(!unload.is_finished(), "it waits for the end");
    drop(held);
    unload.await.unwrap().unwrap();
    assert_eq!(index(&repository), ["m 1 UNAVAILABLE unloaded"]);
}

#[tokio::test]
async fn loads_are_bounded_and_go_on_when_their_caller_is_gone() {
    let root = lookup();
    let repository = open(&root, &[]);
    let loading = {
        let alone = repository.shared.work.alone("m");
        let loads: Vec<_> = (0..MAX_UNDER_WAY)
            .map(|_| {
                let repository = Arc::clone(&repository);
                tokio::spawn(async move { repository.load_model("m", none()).await })
            })
            .collect();
        while repository.shared.work.begin_below(MAX_UNDER_WAY).is_some() {
            tokio::task::yield_now().await;
        }
        let error = repository.load_model("m", none()).await.unwrap_err();
        assert!(matches!(error, ServingError::Overloaded { .. }), "{error}");
        // Nobody waits for these any more.
        loads[1..].iter().for_each(tokio::task::JoinHandle::abort);
        drop(alone);
        loads
    };
    for (at, load) in loading.into_iter().enumerate() {
        match load.await {
            Ok(loaded) => loaded.unwrap(),
            Err(error) => assert!(at > 0 && error.is_cancelled()),
        }
    }
    let work = Arc::clone(&repository.shared.work);
    tokio::task::spawn_blocking(move || work.wait()).await.unwrap();
    assert_eq!(index(&repository), ["m 1 READY "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_and_unloads_survive_a_shutdown_in_their_middle() {
    let root = test_models::repository(&[("a", "lookup", "max_batch_size: 4"), ("b", "open", "")]);
    for round in 0..8 {
        let repository = open(&root, &["a"]);
        let operations: Vec<_> = (0..6)
            .map(|at| {
                let repository = Arc::clone(&repository);
                tokio::spawn(async move {
                    match (at + round) % 3 {
                        0 => repository.load_model("a", none()).await,
                        1 => repository.unload_model("a", none()).await,
                        _ => repository.load_model("b", none()).await,
                    }
                })
            })
            .collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let stopping = Arc::clone(&repository);
        tokio::task::spawn_blocking(move || stopping.shutdown()).await.unwrap();
        for operation in operations {
            let ended = operation.await.unwrap();
            assert!(matches!(ended, Ok(()) | Err(ServingError::Unavailable(_))), "{ended:?}");
        }
        assert!(repository.load_model("a", none()).await.is_err());
        for model in repository.versions() {
            assert!(ask(&model).await.is_err(), "nothing is accepted after a shutdown");
        }
    }
}

#[test]
fn a_component_that_cannot_be_used_is_not_logged_by_who_hands_on_why() {
    let root = lookup();
    fs::write(root.path().join("m/preprocess.wasm"), "no component").unwrap();
    let config = config(root.path(), ModelControlMode::None, &[]);
    let repository = ModelRepository::open(&config, Arc::new(NoObserver)).unwrap();
    let mut errors = Vec::new();
    let logged = crate::test_logs::levels(|| errors = repository.load_chosen());
    assert!(errors[0].0 == "m" && errors[0].1.to_string().contains("preprocess.wasm"), "{errors:?}");
    assert!(!logged.contains(&"ERROR".to_owned()), "{logged:?}");
}
