//! The invariants of ARCHITECTURE.md that can be read off the source.

use crate::photo::repository;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 6] = ["target", ".git", ".convoy", "data", "node_modules", "__pycache__"];
/// Endings of what people write and read.
const WRITTEN: [&str; 10] = ["rs", "py", "sh", "proto", "toml", "md", "wit", "yaml", "yml", "pbtxt"];
const MAX_LINES: usize = 400;
/// It names everything, to look for it.
const THIS_FILE: &str = "tests/e2e/invariants.rs";

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !SKIPPED.contains(&name) {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|ending| WRITTEN.contains(&ending.to_str().unwrap())) {
            found.push(path);
        }
    }
}

/// Path below the root and text of every source file.
fn sources() -> Vec<(String, String)> {
    let root = repository();
    let mut found = Vec::new();
    files(&root, &mut found);
    let sources: Vec<_> = found
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (below, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(sources.len() > 80, "only {} files were found", sources.len());
    sources
}

/// Whether a line of Rust names the crate in a path: `name::`, or `use name`.
fn names_crate(text: &str, name: &str) -> bool {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        let path = format!("{name}::");
        let begins = |(at, _): (usize, &str)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        };
        line.match_indices(&path).any(begins) || line == format!("use {name};")
    })
}

/// Fails where Rust outside of `allowed` (beginnings of paths) names the crate, or where nothing inside does.
fn assert_only(name: &str, allowed: &[&str]) {
    let rust = sources().into_iter().filter(|(path, _)| path.ends_with(".rs") && path != THIS_FILE);
    let users: Vec<String> = rust.filter(|(_, text)| names_crate(text, name)).map(|(path, _)| path).collect();
    let (inside, outside): (Vec<_>, Vec<_>) =
        users.into_iter().partition(|path| allowed.iter().any(|beginning| path.starts_with(beginning)));
    assert!(outside.is_empty(), "{name} is used in {outside:?}; it belongs into {allowed:?}");
    assert!(!inside.is_empty(), "nothing uses {name}: the check is blind");
}

#[test]
fn only_backend_onnx_imports_ort() {
    assert_only("ort", &["server/src/backend/onnx.rs", "server/src/backend/onnx/"]);
}

#[test]
fn only_the_sandbox_imports_wasmtime() {
    assert_only("wasmtime", &["preprocess-wasm/host/"]);
}

#[test]
fn only_the_gpu_module_imports_nvml() {
    assert_only("nvml_wrapper", &["server/src/gpu.rs", "server/src/gpu/"]);
}

#[test]
fn only_the_store_imports_rusqlite() {
    // The last two are tests that look at what is on the disk.
    assert_only(
        "rusqlite",
        &[
            "services/results/src/store.rs",
            "services/results/src/store/",
            "services/results/tests/",
            "tests/",
        ],
    );
}

#[test]
fn the_batching_policy_is_pure() {
    let policy: Vec<_> =
        sources().into_iter().filter(|(path, _)| path.starts_with("server/src/scheduler/policy")).collect();
    assert!(!policy.is_empty());
    for (path, text) in policy {
        for name in ["tonic", "ort", "tokio"] {
            assert!(!names_crate(&text, name), "{path} imports {name}");
        }
        assert!(!text.contains("Instant::now()"), "{path} looks at the clock: it is to be handed `now`");
    }
}

#[test]
fn services_do_not_depend_on_each_other() {
    let services = ["model-serving", "feature-service", "results-service"];
    for (manifest, own) in [
        ("server", "model-serving"),
        ("services/feature", "feature-service"),
        ("services/results", "results-service"),
    ] {
        let text = fs::read_to_string(repository().join(manifest).join("Cargo.toml")).unwrap();
        for other in services.iter().filter(|name| **name != own) {
            let depends = text.lines().any(|line| line.starts_with(other));
            assert!(!depends, "{manifest} depends on {other}");
        }
    }
    let sandbox = fs::read_to_string(repository().join("preprocess-wasm/host/Cargo.toml")).unwrap();
    for ours in ["service-kit", "convoy-proto", "model-serving", "feature-service", "results-service"] {
        assert!(!sandbox.lines().any(|line| line.starts_with(ours)), "sandbox depends on {ours}");
    }
    let results = fs::read_to_string(repository().join("services/results/Cargo.toml")).unwrap();
    assert!(!results.contains("tonic"), "results-service has no gRPC");
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "split {long:?}");
}

#[test]
fn the_check_sees_what_it_should() {
    assert!(names_crate("use ort::session::Session;", "ort"));
    assert!(names_crate("    let x = ort::init();", "ort"));
    assert!(names_crate("fn f(_: &::rusqlite::Connection) {}", "rusqlite"));
    assert!(!names_crate("use crate::effort::x;", "ort"));
    assert!(!names_crate("// ort::init is called elsewhere", "ort"));
    assert!(!names_crate("use report::ort_of;", "ort"));
}
