//! Which model file was loaded, so that nothing else is taken for it later.
//!
//! Sessions are opened from the file's path: several while a model loads, and one whenever an instance is made anew. By
//! then another file may lie there, put there to be loaded next. An instance of it among those of the version before would
//! answer with other weights under the same version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::profile_cache::sha256_of;
use crate::backend::{Backend, BackendError, BackendFactory};

/// A model file as it was when it was first looked at, and the files beside it, in which its weights may lie.
#[derive(Debug)]
pub(crate) struct ModelFile {
    path: PathBuf,
    stamp: Stamp,
    sha256: String,
    /// The other files of the version's folder. They may be very large, so they are told by their stamps alone.
    beside: Vec<(PathBuf, Stamp)>,
}

/// What tells quickly that a file has not been written to or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl ModelFile {
    /// Looks at the file at `path`. Of a file in a version's folder (a number), those beside it are looked at, too; a
    /// model that is one file among others has none.
    ///
    /// # Errors
    /// When it cannot be read, in words for the middle of a sentence.
    pub(crate) fn look_at(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("it cannot be read: {error}");
        let stamp = Stamp::of(path).map_err(failed)?;
        let sha256 = sha256_of(path).map_err(failed)?;
        let folder = path.parent().filter(|folder| is_number(folder));
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let beside = entries
            .map(|entry| entry.path())
            .filter(|other| other != path && other.is_file())
            .filter_map(|other| Some((other.clone(), Stamp::of(&other).ok()?)));
        Ok(Self { path: path.to_owned(), stamp, sha256, beside: beside.collect() })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the model file, hexadecimal.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether it is still what it was.
    ///
    /// # Errors
    /// Says what is not, and what to do.
    fn check(&self) -> Result<(), BackendError> {
        let changed = |path: &Path| {
            BackendError::new(format!(
                "{} is not what it was when the model was loaded: load the model again, or put the file back",
                path.display()
            ))
        };
        let gone =
            |path: &Path, error| BackendError::new(format!("{} cannot be read: {error}", path.display()));
        let stamp = Stamp::of(&self.path).map_err(|error| gone(&self.path, error))?;
        // The same bytes may have been written again.
        if stamp != self.stamp {
            let sha256 = sha256_of(&self.path).map_err(|error| gone(&self.path, error))?;
            if sha256 != self.sha256 {
                return Err(changed(&self.path));
            }
        }
        for (path, stamp) in &self.beside {
            if Stamp::of(path).map_err(|error| gone(path, error))? != *stamp {
                return Err(changed(path));
            }
        }
        Ok(())
    }
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified().ok(), inode })
    }
}

fn is_number(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u64>().is_ok())
}

/// Makes backends of a model file for as long as it is the same.
pub(crate) struct SameFileFactory<F> {
    pub(crate) inner: F,
    pub(crate) file: Arc<ModelFile>,
}

impl<F: BackendFactory> BackendFactory for SameFileFactory<F> {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        let backend = self.inner.create()?;
        // Afterwards: it may be replaced while it is being opened. What was opened of another file is dropped.
        self.file.check()?;
        Ok(backend)
    }

    fn is_on_accelerator(&self) -> bool {
        self.inner.is_on_accelerator()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::backend::simulated::SimulatedBackend;
    use std::fs::File;
    use std::time::Duration;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("7");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("model.onnx"), "graph").unwrap();
        fs::write(folder.join("weights.bin"), "weights").unwrap();
        (root, folder)
    }

    fn make(file: &Arc<ModelFile>) -> Result<(), String> {
        let inner = SimulatedBackend::new(SimulatedBackend::echo);
        let made = SameFileFactory { inner, file: Arc::clone(file) }.create();
        made.map(drop).map_err(|error| error.to_string())
    }

    /// Writes a file so that its time surely is another.
    fn write(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().append(true).open(path).unwrap().set_modified(later).unwrap();
    }

    #[test]
    fn backends_are_made_of_the_file_that_was_loaded_only() {
        let (_root, folder) = folder();
        let path = folder.join("model.onnx");
        let file = Arc::new(ModelFile::look_at(&path).unwrap());
        make(&file).unwrap();
        // The same bytes, written again, and another file that came later.
        write(&path, "graph");
        fs::write(folder.join("notes.txt"), "new").unwrap();
        make(&file).unwrap();
        write(&path, "other");
        let error = make(&file).unwrap_err();
        assert!(
            error.contains("model.onnx is not what it was") && error.contains("load the model again"),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        assert!(make(&file).unwrap_err().contains("cannot be read"));
        write(&path, "graph");
        make(&file).unwrap();
    }

    #[test]
    fn weights_beside_it_belong_to_it() {
        let (_root, folder) = folder();
        let file = Arc::new(ModelFile::look_at(&folder.join("model.onnx")).unwrap());
        write(&folder.join("weights.bin"), "WEIGHTS");
        assert!(make(&file).unwrap_err().contains("weights.bin is not what it was"));
    }

    #[test]
    fn a_file_among_others_stands_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.onnx");
        write(&path, "graph");
        write(&root.path().join("other.txt"), "1");
        let file = Arc::new(ModelFile::look_at(&path).unwrap());
        write(&root.path().join("other.txt"), "2");
        make(&file).unwrap();
    }
}
