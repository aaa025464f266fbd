#![allow(clippy::unwrap_used)]

use super::*;

/// A repository with these files; their content is written by `content`.
fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn versions(policy: &str) -> Result<Vec<u64>, String> {
    let root = repository(&[
        ("m/config.pbtxt", policy),
        ("m/1/model.onnx", ""),
        ("m/2/model.onnx", ""),
        ("m/10/model.onnx", ""),
        ("m/03/model.onnx", ""),
        ("m/notes/model.onnx", ""),
    ]);
    let source = find(root.path(), "m", None).map_err(|error| error.to_string())?.unwrap();
    Ok(source.versions.iter().map(|&(number, _)| number).collect())
}

#[test]
fn the_version_policy_is_honoured() {
    assert_eq!(versions("").unwrap(), [10]);
    assert_eq!(versions("version_policy { latest { num_versions: 2 } }").unwrap(), [10, 2]);
    assert_eq!(versions("version_policy { all { } }").unwrap(), [10, 2, 1]);
    assert_eq!(versions("version_policy { specific { versions: [ 1, 2 ] } }").unwrap(), [2, 1]);
    let error = versions("version_policy { specific { versions: [ 7 ] } }").unwrap_err();
    assert!(error.contains("version 7, which is not there"), "{error}");
}

#[test]
fn models_are_sorted_and_other_folders_are_left_alone() {
    let root = repository(&[
        ("b/1/model.onnx", ""),
        ("a/1/model.onnx", ""),
        ("docs/readme.md", ""),
        ("LICENSE", ""),
    ]);
    assert_eq!(names(root.path()).unwrap(), ["a", "b"]);
    assert_eq!(find(root.path(), "b", None).unwrap().unwrap().name, "b");
    assert!(find(root.path(), "docs", None).unwrap().is_none());
}

#[test]
fn one_file_is_version_1_of_a_model_of_its_name() {
    let root = repository(&[("yard.onnx", ""), ("config.pbtxt", "name: \"other\" max_batch_size: 2")]);
    let file = root.path().join("yard.onnx");
    assert_eq!(names(&file).unwrap(), ["yard"]);
    let source = find(&file, "yard", None).unwrap().unwrap();
    assert_eq!(source.versions, [(1, file.clone())]);
    assert_eq!(source.written.config.max_batch_size, 2);
    assert!(find(&file, "other", None).unwrap().is_none());
}

#[test]
fn what_cannot_be_served_is_said_with_what_to_do() {
    let root = repository(&[("m/config.pbtxt", ""), ("empty/readme.md", ""), ("model.pt", "")]);
    for (path, part) in [
        ("m", "it is the folder of one model"),
        ("model.pt", "does not end in .onnx"),
        ("absent", "No such file"),
    ] {
        let error = names(&root.path().join(path)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = find(root.path(), "m", None).unwrap_err().to_string();
    assert!(error.contains("put one at 1/model.onnx"), "{error}");
    assert_eq!(names(&root.path().join("empty")).unwrap(), [""; 0]);
}

#[test]
fn a_name_leads_nowhere_but_into_the_repository() {
    let root = repository(&[("models/m/1/model.onnx", ""), ("secret/1/model.onnx", "")]);
    let path = root.path().join("models");
    assert!(find(&path, "m", None).unwrap().is_some());
    let absolute = root.path().join("secret");
    let absolute = absolute.to_str().unwrap();
    for name in ["../secret", absolute, "..", ".", "", "/", "m/", "./m", "m/../m", "m/1", "\0"] {
        assert!(find(&path, name, None).unwrap().is_none(), "{name:?}");
    }
    let secret = repository(&[
        ("m/config.pbtxt", "default_model_filename: \"../../secret/1/model.onnx\""),
        ("m/1/model.onnx", ""),
    ]);
    let error = find(secret.path(), "m", None).unwrap_err().to_string();
    assert!(error.contains("must be the name of a file"), "{error}");
}

#[test]
fn a_given_configuration_takes_the_place_of_the_one_on_disk() {
    let root = repository(&[("m/config.pbtxt", "broken {"), ("m/1/model.onnx", ""), ("m/2/model.onnx", "")]);
    assert!(find(root.path(), "m", None).is_err());
    let given = config::parse_json(r#"{"version_policy": {"specific": {"versions": [1]}}}"#).unwrap();
    let source = find(root.path(), "m", Some(given)).unwrap().unwrap();
    assert_eq!(source.versions.iter().map(|&(number, _)| number).collect::<Vec<_>>(), [1]);
}
