//! Which models and versions lie at the model path.

use std::fs;
use std::path::{Path, PathBuf};

use convoy_proto::inference::model_version_policy::PolicyChoice;
use convoy_proto::inference::{ModelConfig, ModelVersionPolicy};

use super::config::{self, WrittenConfig};
use crate::error::LoadError;

/// Name of a model's configuration.
const CONFIG_FILE: &str = "config.pbtxt";
/// Name of the model file in a version's folder, unless the configuration names another.
const MODEL_FILE: &str = "model.onnx";

/// A model as it lies on disk.
#[derive(Debug)]
pub(crate) struct ModelSource {
    /// Its name: that of its folder, or of its file without the ending.
    pub(crate) name: String,
    /// Where its labels are.
    pub(crate) folder: PathBuf,
    /// Its configuration, empty where there is none.
    pub(crate) written: WrittenConfig,
    /// Where that is, or would be.
    pub(crate) config_path: PathBuf,
    /// The versions to serve, newest first: number and model file.
    pub(crate) versions: Vec<(u64, PathBuf)>,
}

/// Finds every model at `path`: a repository, or one `.onnx` file, which is version 1 of a model.
///
/// # Errors
/// When there is nothing to serve, or a configuration is wrong.
pub(crate) fn discover(path: &Path) -> Result<Vec<ModelSource>, LoadError> {
    let failed = |detail: String| LoadError::Repository { path: path.to_owned(), detail };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.is_file() {
        return single_file(path).map(|source| vec![source]);
    }
    if path.join(CONFIG_FILE).is_file() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map_or_else(|| "its parent".to_owned(), |parent| parent.display().to_string());
        return Err(failed(format!(
            "it is the folder of one model: give {parent}, or the model's .onnx file"
        )));
    }
    let mut sources = Vec::new();
    for folder in folders(path).map_err(|error| failed(error.to_string()))? {
        sources.extend(model_folder(&folder)?);
    }
    if sources.is_empty() {
        return Err(failed(format!("it holds no model: put one at NAME/VERSION/{MODEL_FILE}")));
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

fn single_file(path: &Path) -> Result<ModelSource, LoadError> {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let Some(name) = name.filter(|_| path.extension().is_some_and(|ending| ending == "onnx")) else {
        let detail = "it is a file, and its name does not end in .onnx".to_owned();
        return Err(LoadError::Repository { path: path.to_owned(), detail });
    };
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let config_path = folder.join(CONFIG_FILE);
    let mut written = read_config(&config_path)?;
    // The file stands for itself: a configuration beside it does not have to carry its name.
    written.config.name = name.to_owned();
    let versions = vec![(1, path.to_owned())];
    Ok(ModelSource { name: name.to_owned(), folder, written, config_path, versions })
}

/// The model in a folder; `None` for a folder that has nothing of a model.
fn model_folder(folder: &Path) -> Result<Option<ModelSource>, LoadError> {
    let failed = |detail: String| LoadError::Repository { path: folder.to_owned(), detail };
    let config_path = folder.join(CONFIG_FILE);
    let mut found: Vec<(u64, PathBuf)> = folders(folder)
        .map_err(|error| failed(error.to_string()))?
        .into_iter()
        .filter_map(|folder| Some((version_number(folder.file_name()?.to_str()?)?, folder)))
        .collect();
    if found.is_empty() && !config_path.is_file() {
        return Ok(None);
    }
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed("its name is not UTF-8".to_owned()))?;
    let written = read_config(&config_path)?;
    found.sort_by_key(|&(number, _)| std::cmp::Reverse(number));
    let file_name = match written.config.default_model_filename.as_str() {
        "" => MODEL_FILE,
        name => name,
    };
    let chosen = choose(&written.config, &found.iter().map(|&(number, _)| number).collect::<Vec<_>>());
    let chosen =
        chosen.map_err(|detail| LoadError::Config { path: config_path.clone(), line: None, detail })?;
    if chosen.is_empty() {
        return Err(failed(format!("it holds no version: put one at 1/{file_name}")));
    }
    let versions: Vec<_> = found
        .into_iter()
        .filter(|(number, _)| chosen.contains(number))
        .map(|(number, folder)| (number, folder.join(file_name)))
        .collect();
    Ok(Some(ModelSource { name: name.to_owned(), folder: folder.to_owned(), written, config_path, versions }))
}

/// The versions that the policy chooses among `found`, newest first.
fn choose(config: &ModelConfig, found: &[u64]) -> Result<Vec<u64>, String> {
    let policy = config.version_policy.clone().and_then(|ModelVersionPolicy { policy_choice }| policy_choice);
    match policy {
        None => Ok(found.iter().take(1).copied().collect()),
        Some(PolicyChoice::Latest(latest)) => {
            let count = usize::try_from(latest.num_versions.max(1)).unwrap_or(usize::MAX);
            Ok(found.iter().take(count).copied().collect())
        }
        Some(PolicyChoice::All(_)) => Ok(found.to_vec()),
        Some(PolicyChoice::Specific(specific)) => {
            let mut chosen = Vec::new();
            for version in specific.versions {
                let number = u64::try_from(version).ok().filter(|number| found.contains(number));
                chosen.push(
                    number.ok_or_else(|| {
                        format!("version_policy wants version {version}, which is not there")
                    })?,
                );
            }
            Ok(chosen)
        }
    }
}

/// The number of a version's folder, from 1 on and written without leading zeros.
fn version_number(name: &str) -> Option<u64> {
    let plain = !name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| plain)
}

fn read_config(path: &Path) -> Result<WrittenConfig, LoadError> {
    match fs::read_to_string(path) {
        Ok(text) => config::parse(path, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(WrittenConfig::default()),
        Err(error) => Err(LoadError::Config { path: path.to_owned(), line: None, detail: error.to_string() }),
    }
}

/// The folders in a folder, links followed.
fn folders(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let entries: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    Ok(entries.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
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
        let sources = discover(root.path()).map_err(|error| error.to_string())?;
        Ok(sources[0].versions.iter().map(|&(number, _)| number).collect())
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
        let sources = discover(root.path()).unwrap();
        assert_eq!(sources.iter().map(|source| &*source.name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn one_file_is_version_1_of_a_model_of_its_name() {
        let root = repository(&[("yard.onnx", ""), ("config.pbtxt", "name: \"other\" max_batch_size: 2")]);
        let sources = discover(&root.path().join("yard.onnx")).unwrap();
        assert_eq!(sources[0].name, "yard");
        assert_eq!(sources[0].versions, [(1, root.path().join("yard.onnx"))]);
        assert_eq!(sources[0].written.config.max_batch_size, 2);
    }

    #[test]
    fn what_cannot_be_served_is_said_with_what_to_do() {
        let root = repository(&[("m/config.pbtxt", ""), ("empty/readme.md", ""), ("model.pt", "")]);
        for (path, part) in [
            ("", "put one at 1/model.onnx"),
            ("empty", "put one at NAME/VERSION/model.onnx"),
            ("m", "it is the folder of one model"),
            ("model.pt", "does not end in .onnx"),
            ("absent", "No such file"),
        ] {
            let error = discover(&root.path().join(path)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
