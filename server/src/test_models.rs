//! The small models of `tests/models/`, and the library that runs them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// ONNX Runtime, where `scripts/setup-onnxruntime.sh` puts it.
pub(crate) fn library() -> PathBuf {
    let library = root().join(".convoy/onnxruntime/libonnxruntime.so");
    library.canonicalize().expect("ONNX Runtime is set up: run scripts/setup-onnxruntime.sh")
}

/// The model file of a test model, made by `tests/models/generate.py`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(format!("{name}.onnx"))
}

/// A repository with these models: name of the model, name of the test model, configuration.
pub(crate) fn repository(models: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, file, config) in models {
        let folder = root.path().join(name);
        std::fs::create_dir_all(folder.join("1")).unwrap();
        std::fs::copy(path(file), folder.join("1/model.onnx")).unwrap();
        std::fs::write(folder.join("config.pbtxt"), config).unwrap();
    }
    root
}

/// Puts another version of the test model `lookup` into a repository: one whose values are negated. Where the test
/// model answers 10 times the index, this one answers -10 times it.
pub(crate) fn add_negated_lookup(model: &Path, version: u64) {
    let folder = model.join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(path("negated_lookup"), folder.join("model.onnx")).unwrap();
}
