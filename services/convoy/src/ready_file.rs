//! `--ready-file`: the addresses that were bound, as JSON, for scripts and tests that start Convoy on port 0.

use crate::exit::Failure;
use serde::Serialize;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

/// The addresses of the services that run in this process; those of others are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Addresses {
    /// model-serving, gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<SocketAddr>,
    /// model-serving, REST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// model-serving, metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// feature-service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<SocketAddr>,
    /// results-service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<SocketAddr>,
    /// results-service, what only an operator may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}

impl Addresses {
    /// Those that are known, with their names in the ready file.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let all = [
            ("grpc", self.grpc),
            ("http", self.http),
            ("metrics", self.metrics),
            ("feature", self.feature),
            ("results", self.results),
            ("admin", self.admin),
        ];
        all.into_iter().filter_map(|(name, address)| Some((name, address?)))
    }
}

/// Checks that a ready file can be at `path`.
///
/// # Errors
/// [`Failure::Usage`] when its folder does not exist, or it is a folder itself.
pub fn check(path: &Path) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Failure::Usage(format!("The ready file {} {what}: set --ready-file (READY_FILE).", path.display()))
    };
    if path.is_dir() {
        return Err(wrong("is a folder"));
    }
    if !folder_of(path).is_dir() {
        return Err(wrong("is in a folder that does not exist"));
    }
    Ok(())
}

/// Writes `addresses` to `path` in one step: who reads it sees the whole file or none.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path))?;
    serde_json::to_writer(&mut file, addresses)?;
    file.write_all(b"\n")?;
    make_readable(file.as_file())?;
    file.persist(path)?;
    Ok(())
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// When there is one and it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Temporary files are for their owner only; a ready file is often read by another user.
fn make_readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_runs_here_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let addresses = Addresses {
            results: Some("127.0.0.1:5002".parse().unwrap()),
            admin: Some("127.0.0.1:5003".parse().unwrap()),
            ..Addresses::default()
        };
        write(&path, &addresses).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"results\":\"127.0.0.1:5002\",\"admin\":\"127.0.0.1:5003\"}\n");
        assert_eq!(serde_json::from_str::<Addresses>(&text).unwrap(), addresses);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");

        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_place_that_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(check(folder.path()), Err(Failure::Usage(_))));
        assert!(matches!(check(&folder.path().join("no/such/ready.json")), Err(Failure::Usage(_))));
        assert_eq!(check(&folder.path().join("ready.json")), Ok(()));
        assert_eq!(check(Path::new("ready.json")), Ok(()));
    }
}
