//! Which models and versions lie at the model path.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use convoy_proto::inference::model_version_policy::PolicyChoice;
use convoy_proto::inference::{ModelConfig, ModelVersionPolicy};

use super::config::{self, WrittenConfig};
use crate::error::LoadError;

/// Name of a model's configuration.
const CONFIG_FILE: &str = "config.pbtxt";
/// What stands in messages for the path of a configuration that came with a load.
const GIVEN_CONFIG: &str = "The parameter `config`";
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

impl ModelSource {
    /// Whether there is a configuration, in a file or given with the load.
    pub(crate) fn is_configured(&self) -> bool {
        self.config_path == Path::new(GIVEN_CONFIG) || self.config_path.is_file()
    }

    /// What is wrong with the configuration.
    pub(crate) fn config_error(&self, detail: String) -> LoadError {
        LoadError::Config { path: self.config_path.clone(), line: None, detail }
    }
}

/// The names of the models at `path`, a repository or one `.onnx` file, sorted; nothing of them is read yet.
///
/// # Errors
/// When the path cannot be one.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, LoadError> {
    let failed = |detail: String| LoadError::Repository { path: path.to_owned(), detail };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.is_file() {
        return file_name(path).map(|name| vec![name.to_owned()]);
    }
    if path.join(CONFIG_FILE).is_file() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.map_or_else(|| "its parent".to_owned(), |parent| parent.display().to_string());
        return Err(failed(format!(
            "it is the folder of one model: give {parent}, or the model's .onnx file"
        )));
    }
    let mut names = Vec::new();
    for folder in folders(path).map_err(|error| failed(error.to_string()))? {
        if !folder.join(CONFIG_FILE).is_file() && numbered_folders(&folder)?.is_empty() {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str());
        names.push(name.ok_or_else(|| failed(format!("{} is no UTF-8", folder.display())))?.to_owned());
    }
    names.sort();
    Ok(names)
}

/// The repository has no model.
pub(crate) fn nothing_to_serve(path: &Path) -> LoadError {
    let detail = format!("it holds no model: put one at NAME/VERSION/{MODEL_FILE}");
    LoadError::Repository { path: path.to_owned(), detail }
}

/// Reads the model `name` at `path` as it lies there now, with the configuration `given` or its own; `None` when there
/// is no such model.
///
/// # Errors
/// When its configuration is wrong, or it has nothing to serve.
pub(crate) fn find(
    path: &Path,
    name: &str,
    given: Option<WrittenConfig>,
) -> Result<Option<ModelSource>, LoadError> {
    if path.is_file() {
        return match file_name(path)? == name {
            true => single_file(path, name, given).map(Some),
            false => Ok(None),
        };
    }
    // The name may come from a client, and is to lead nowhere else.
    let mut components = Path::new(name).components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name);
    let folder = path.join(name);
    if !is_plain || !folder.is_dir() {
        return Ok(None);
    }
    model_folder(&folder, name, given)
}

fn file_name(path: &Path) -> Result<&str, LoadError> {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    name.filter(|_| path.extension().is_some_and(|ending| ending == "onnx")).ok_or_else(|| {
        let detail = "it is a file, and its name does not end in .onnx".to_owned();
        LoadError::Repository { path: path.to_owned(), detail }
    })
}

fn single_file(path: &Path, name: &str, given: Option<WrittenConfig>) -> Result<ModelSource, LoadError> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let config_path = config_path(&folder, given.as_ref());
    let mut written = given.map_or_else(|| read_config(&config_path), Ok)?;
    // The file stands for itself: a configuration beside it does not have to carry its name.
    written.config.name = name.to_owned();
    let versions = vec![(1, path.to_owned())];
    Ok(ModelSource { name: name.to_owned(), folder, written, config_path, versions })
}

/// The model in a folder; `None` for a folder that has nothing of a model.
fn model_folder(
    folder: &Path,
    name: &str,
    given: Option<WrittenConfig>,
) -> Result<Option<ModelSource>, LoadError> {
    let failed = |detail: String| LoadError::Repository { path: folder.to_owned(), detail };
    let config_path = config_path(folder, given.as_ref());
    let mut found = numbered_folders(folder)?;
    if found.is_empty() && !folder.join(CONFIG_FILE).is_file() {
        return Ok(None);
    }
    let written = given.map_or_else(|| read_config(&config_path), Ok)?;
    let config_error = |detail| LoadError::Config { path: config_path.clone(), line: None, detail };
    found.sort_by_key(|&(number, _)| Reverse(number));
    let file_name = match written.config.default_model_filename.as_str() {
        "" => MODEL_FILE,
        name => name,
    };
    if Path::new(file_name).file_name().is_none_or(|plain| plain != file_name) {
        return Err(config_error(format!(
            "default_model_filename is `{file_name}`, and must be the name of a file in the version's folder"
        )));
    }
    let numbers: Vec<u64> = found.iter().map(|&(number, _)| number).collect();
    let chosen = choose(&written.config, &numbers).map_err(config_error)?;
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

/// Where a model's configuration is; a given one is no file.
fn config_path(folder: &Path, given: Option<&WrittenConfig>) -> PathBuf {
    given.map_or_else(|| folder.join(CONFIG_FILE), |_| PathBuf::from(GIVEN_CONFIG))
}

/// The folders of a model's versions.
fn numbered_folders(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LoadError> {
    let failed =
        |error: io::Error| LoadError::Repository { path: folder.to_owned(), detail: error.to_string() };
    let number = |folder: PathBuf| Some((version_number(folder.file_name()?.to_str()?)?, folder));
    Ok(folders(folder).map_err(failed)?.into_iter().filter_map(number).collect())
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(WrittenConfig::default()),
        Err(error) => Err(LoadError::Config { path: path.to_owned(), line: None, detail: error.to_string() }),
    }
}

/// The folders in a folder, links followed.
fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let entries: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    Ok(entries.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests;
