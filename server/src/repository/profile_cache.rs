//! What was measured of a model, kept from one start to the next: the second one is ready at once.
//!
//! One small JSON file for each model, device and library. It says in plain words what it was measured on, and is not
//! used for anything else; whoever deletes it has the model measured again.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use service_kit::hexadecimal;
use sha2::{Digest as _, Sha256};

use super::kept_profile::Factors;
use super::shapes::{InstanceShape, Measurements};

/// Version of the files' format and of the way to measure: what is kept under another one is measured again.
const FORMAT: u32 = 2;
/// A file of ours is far smaller.
const MAX_BYTES: u64 = 1 << 20;

/// What measurements hold for: if any of it changes, they are made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProfileKey {
    /// SHA-256 of the model file, hexadecimal.
    pub(crate) model_sha256: String,
    /// What runs the model.
    pub(crate) device: String,
    /// ONNX Runtime's own word for its build.
    pub(crate) library: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Rows of a batch at most.
    pub(crate) max_batch_size: usize,
    /// Inputs and outputs as they are configured.
    pub(crate) tensors: String,
    /// The shapes that were to be measured.
    pub(crate) candidates: Vec<InstanceShape>,
}

/// The contents of a file.
#[derive(Serialize, Deserialize)]
struct Entry {
    format: u32,
    #[serde(flatten)]
    key: ProfileKey,
    measurements: Measurements,
    /// What serving has learned of them since.
    #[serde(default)]
    factors: Factors,
}

/// A folder with a file for each model that was measured.
#[derive(Clone, Debug)]
pub(crate) struct ProfileCache {
    folder: PathBuf,
}

impl ProfileCache {
    /// The cache in this folder, which is made when something is kept.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.join("profiles") }
    }

    /// What is kept for this key. What cannot be read or cannot be true is as if it were not there.
    pub(crate) fn get(&self, key: &ProfileKey) -> Option<Measurements> {
        let path = self.path(key);
        match read(&path) {
            Ok(Some(entry)) if entry.format == FORMAT && entry.key == *key => {
                if entry.measurements.are_possible(&key.candidates) {
                    return Some(entry.measurements);
                }
                warn(&path, "it holds durations that cannot be");
                None
            }
            Ok(_) => None,
            Err(error) => {
                warn(&path, &error.to_string());
                None
            }
        }
    }

    /// What was learned of the measurements that are kept for this key.
    pub(crate) fn factors(&self, key: &ProfileKey) -> Factors {
        let entry = read(&self.path(key)).ok().flatten().filter(|entry| entry.key == *key);
        entry.map(|entry| entry.factors.possible()).unwrap_or_default()
    }

    /// Keeps measurements. That it cannot be done is a warning: the next start measures again.
    pub(crate) fn put(&self, key: &ProfileKey, measurements: &Measurements) {
        self.put_learned(key, measurements, Factors::default());
    }

    /// Keeps measurements with what was learned of them.
    pub(crate) fn put_learned(&self, key: &ProfileKey, measurements: &Measurements, factors: Factors) {
        if let Err(error) = self.write(key, measurements, factors) {
            tracing::warn!(
                folder = %self.folder.display(), %error,
                "What was measured of a model cannot be kept: the next start will measure it again"
            );
        }
    }

    fn write(&self, key: &ProfileKey, measurements: &Measurements, factors: Factors) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let entry = Entry { format: FORMAT, key: key.clone(), measurements: measurements.clone(), factors };
        let path = self.path(key);
        // Written beside and renamed: another server that starts now reads the old file or the new one.
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let mut file = File::create(&partial)?;
        let written = serde_json::to_writer_pretty(&mut file, &entry).map_err(io::Error::from);
        let written = written.and_then(|()| file.write_all(b"\n")).and_then(|()| fs::rename(&partial, &path));
        if written.is_err() {
            // What is left of it would be in the way of nobody, but is of no use either.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn path(&self, key: &ProfileKey) -> PathBuf {
        let key = serde_json::to_vec(key).expect("a key has only texts and numbers");
        self.folder.join(format!("{}.json", &hexadecimal(&Sha256::digest(key))[..32]))
    }
}

fn read(path: &Path) -> io::Result<Option<Entry>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(serde_json::from_str(&text)?))
}

fn warn(path: &Path, detail: &str) {
    tracing::warn!(path = %path.display(), detail, "A kept latency profile cannot be used: the model is measured again");
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hexadecimal(&hasher.finalize()))
}

/// The processor's name, as Linux gives it; empty elsewhere.
pub(crate) fn processor() -> String {
    let name = |text: String| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    fs::read_to_string("/proc/cpuinfo").ok().and_then(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::repository::shapes::{ShapeLatencies, candidates};

    fn key() -> ProfileKey {
        ProfileKey {
            model_sha256: "ab".repeat(32),
            device: "cpu".to_owned(),
            library: "1.32".to_owned(),
            cores: 2,
            max_batch_size: 8,
            tensors: "x".to_owned(),
            candidates: candidates(2),
        }
    }

    fn measurements() -> Measurements {
        let of = |shape, milliseconds: &[(usize, f64)]| ShapeLatencies {
            shape,
            milliseconds: milliseconds.to_vec(),
        };
        let [wide, narrow] = candidates(2)[..] else { panic!("two cores can be shared in two ways") };
        Measurements(vec![of(wide, &[(1, 8.5), (8, 68.125)]), of(narrow, &[(1, 14.7)])])
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> =
            fs::read_dir(folder.join("profiles")).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn what_is_kept_comes_back_for_the_same_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProfileCache::new(folder.path());
        assert_eq!(cache.get(&key()), None);
        cache.put(&key(), &measurements());
        cache.put(&key(), &measurements());
        only_file(folder.path());
        assert_eq!(ProfileCache::new(folder.path()).get(&key()), Some(measurements()));
        for other in [
            ProfileKey { model_sha256: "cd".repeat(32), ..key() },
            ProfileKey { device: "cuda".to_owned(), ..key() },
            ProfileKey { library: "1.33".to_owned(), ..key() },
            ProfileKey { cores: 4, ..key() },
            ProfileKey { max_batch_size: 16, ..key() },
            ProfileKey { tensors: "y".to_owned(), ..key() },
            ProfileKey { candidates: candidates(1), ..key() },
        ] {
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_broken_file_is_measured_again_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProfileCache::new(folder.path());
        cache.put(&key(), &measurements());
        let path = only_file(folder.path());
        let good = fs::read_to_string(&path).unwrap();
        for broken in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            "\u{0}\u{1}".to_owned(),
            good.replace(&format!("\"format\": {FORMAT}"), "\"format\": 0"),
            good.replace("68.125", "-68.125"),
            good.replace("\"cores\": 2", "\"cores\": 3"),
        ] {
            assert_ne!(broken, good);
            fs::write(&path, broken).unwrap();
            assert_eq!(cache.get(&key()), None);
            cache.put(&key(), &measurements());
            assert_eq!(cache.get(&key()), Some(measurements()));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("profiles"), "a file where the folder would be").unwrap();
        let cache = ProfileCache::new(folder.path());
        cache.put(&key(), &measurements());
        assert_eq!(cache.get(&key()), None);
    }

    #[test]
    fn a_file_has_the_hash_that_everyone_gives_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(file.path()).unwrap(), expected);
    }
}
