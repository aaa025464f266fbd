//! The names of a model's classes, for outputs that are asked for with the parameter `classification`.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use convoy_proto::inference::ModelConfig;

use super::version::Task;

/// Names by the index of the class, for each output that has them.
pub(crate) type Labels = HashMap<String, Arc<[Arc<str>]>>;

/// Reads the files that `label_filename` of the outputs names, in the model's `folder`. The outputs of a classifier
/// that name none have the names in `default_file`, if it is there.
///
/// # Errors
/// With what is wrong, without a full stop at its end, when a file that is named cannot be read.
pub(crate) fn read(
    folder: &Path,
    config: &ModelConfig,
    task: Task,
    default_file: &str,
) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for output in &config.output {
        let file = match output.label_filename.as_str() {
            "" if task == Task::Classification && folder.join(default_file).is_file() => default_file,
            "" => continue,
            file => file,
        };
        labels.insert(output.name.clone(), names(folder, file)?.into());
    }
    Ok(labels)
}

/// The names in a file of the model's folder, one a line.
pub(crate) fn names(folder: &Path, file: &str) -> Result<Vec<Arc<str>>, String> {
    let is_inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Err(format!("the labels `{file}` must be the name of a file in the model's folder"));
    }
    let path = folder.join(file);
    let text =
        fs::read_to_string(&path).map_err(|error| format!("the labels {}: {error}", path.display()))?;
    Ok(text.lines().map(|line| line.trim().into()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use convoy_proto::inference::ModelOutput;

    fn config(label_filename: &str) -> ModelConfig {
        let output = ModelOutput {
            name: "y".to_owned(),
            label_filename: label_filename.to_owned(),
            ..ModelOutput::default()
        };
        ModelConfig { output: vec![output], ..ModelConfig::default() }
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_the_default_one_may() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("labels.txt"), "cat\n dog \n").unwrap();
        let read = |file: &str, task| read(folder.path(), &config(file), task, "labels.txt");
        assert_eq!(*read("labels.txt", Task::None).unwrap()["y"], ["cat".into(), "dog".into()]);
        assert_eq!(read("", Task::Classification).unwrap()["y"].len(), 2);
        assert!(read("", Task::None).unwrap().is_empty());
        for file in ["other.txt", "../labels.txt", "/etc/hostname"] {
            assert!(read(file, Task::None).unwrap_err().contains(file));
        }
    }
}
