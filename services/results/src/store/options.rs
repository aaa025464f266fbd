//! How a store is opened.

use super::files;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The database file; created when missing, with its folder.
    pub path: PathBuf,
    /// The receipts of erasures; created when missing.
    pub erasures: PathBuf,
    /// The key that receipts name users under; created together with the receipts.
    pub erasure_key: PathBuf,
    /// Rows that are older are erased; none: they are kept until their user is erased.
    pub retain: Option<Duration>,
    /// How long an erasure may keep its caller waiting; after that it goes on without.
    pub erasure_wait: Duration,
    /// Threads that read.
    pub readers: usize,
    /// Most writes that wait; the next is refused. As many reads may wait.
    pub queue: usize,
    /// Most memory that waiting predictions take, in bytes.
    pub queue_bytes: usize,
    /// How long a statement waits for a lock that another program holds.
    pub busy_timeout: Duration,
}

impl StoreOptions {
    /// The documented defaults for the database at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let path = path.into();
        let folder = files::folder_of(&path);
        Self {
            erasures: folder.join("erasures.log"),
            erasure_key: folder.join("erasure.key"),
            path,
            retain: None,
            erasure_wait: Duration::from_secs(5),
            readers: cores.clamp(2, 4),
            queue: 1024,
            queue_bytes: 64 << 20,
            busy_timeout: Duration::from_secs(5),
        }
    }
}
