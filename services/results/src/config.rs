//! What an operator can set, and the check before any port is bound.

use crate::store::StoreOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The settings of results-service. Every flag has an environment variable; the flag wins.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "results-service")]
pub struct Config {
    /// Address (IP:port) of the REST service. Port 0 takes a free one.
    #[arg(long, env = "RESULTS_ADDR", value_name = "ADDR",
          default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5002)))]
    pub results_addr: SocketAddr,

    /// Address (IP:port) of what only an operator may ask, such as GET /stats: who reaches it needs no password, so
    /// keep it away from networks. Port 0 takes a free one.
    #[arg(long, env = "ADMIN_ADDR", value_name = "ADDR",
          default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 5003)))]
    pub admin_addr: SocketAddr,

    /// The SQLite database. It is created when missing, readable by its owner only, and so is its folder.
    #[arg(long, env = "DB_PATH", value_name = "PATH", default_value = "data/predictions.db")]
    pub db_path: PathBuf,

    /// The receipts of erasures. They are no part of the database, so that restoring an old one cannot undo an erasure:
    /// back them up on their own. Default: erasures.log beside the database.
    #[arg(long, env = "ERASURES", value_name = "PATH")]
    pub erasures: Option<PathBuf>,

    /// The key under which receipts name users, made when there are no receipts yet. It must be readable by its owner
    /// only. Default: erasure.key beside the database.
    #[arg(long, env = "ERASURE_KEY_FILE", value_name = "PATH")]
    pub erasure_key_file: Option<PathBuf>,

    /// How long predictions are kept; older ones are erased in the background. With a unit: 12h, 90d. Default: until
    /// their user is erased.
    #[arg(long, env = "RETAIN", value_name = "DURATION", value_parser = retention)]
    pub retain: Option<Duration>,

    /// Folder for backups that are asked for over the operator's address (POST /backup). Default: none are made so.
    #[arg(long, env = "BACKUP_DIR", value_name = "PATH")]
    pub backup_dir: Option<PathBuf>,
}

/// Reads a retention period: whole seconds, minutes, hours, days or weeks.
fn retention(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time with its unit, such as 12h or 90d".to_owned();
    let unit = text.char_indices().next_back().ok_or_else(expected)?;
    let seconds = match unit.1 {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(expected()),
    };
    let number: u64 = text[..unit.0].parse().map_err(|_| expected())?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(expected()),
    }
}

/// A setting that cannot work; the text says which and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--db-path` is empty, ends in a slash, or starts with a colon as SQLite's own names do.
    #[error("The database path {0:?} names no file: set --db-path (DB_PATH) to the path of a file.")]
    NoFile(PathBuf),
    /// `--db-path` is a folder.
    #[error(
        "The database path {0} is a folder: set --db-path (DB_PATH) to a file in it, such as predictions.db."
    )]
    Folder(PathBuf),
    /// `--backup-dir` is no folder.
    #[error("There is no folder {0}: set --backup-dir (BACKUP_DIR) to one.")]
    NoBackupFolder(PathBuf),
    /// Both faces on one port.
    #[error("--results-addr and --admin-addr are both {0}: give each a port of its own.")]
    SameAddress(SocketAddr),
}

impl Config {
    /// How the store is opened.
    pub fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::new(&self.db_path);
        options.retain = self.retain;
        if let Some(path) = &self.erasures {
            options.erasures.clone_from(path);
        }
        if let Some(path) = &self.erasure_key_file {
            options.erasure_key.clone_from(path);
        }
        options
    }

    /// Checks what can be known before a port is bound or the database is opened.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let text = self.db_path.as_os_str().as_encoded_bytes();
        // A relative path that starts with a colon (`:memory:`) is no file to SQLite.
        if text.is_empty() || text.starts_with(b":") || text.ends_with(b"/") {
            return Err(ConfigError::NoFile(self.db_path.clone()));
        }
        if self.db_path.is_dir() {
            return Err(ConfigError::Folder(self.db_path.clone()));
        }
        if let Some(folder) = self.backup_dir.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(ConfigError::NoBackupFolder(folder.clone()));
        }
        if self.results_addr == self.admin_addr && self.results_addr.port() != 0 {
            return Err(ConfigError::SameAddress(self.results_addr));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn config(arguments: &[&str]) -> Config {
        Cli::try_parse_from([&["test"], arguments].concat()).unwrap().config
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = config(&[]);
        assert_eq!(config.results_addr.to_string(), "0.0.0.0:5002");
        assert_eq!(config.admin_addr.to_string(), "127.0.0.1:5003");
        assert_eq!(config.db_path, PathBuf::from("data/predictions.db"));
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn the_receipts_lie_beside_the_database_unless_said_otherwise() {
        let beside = config(&["--db-path", "d/p.db"]).store_options();
        assert_eq!((beside.erasures, beside.erasure_key), ("d/erasures.log".into(), "d/erasure.key".into()));
        let line = ["--erasures", "e.log", "--erasure-key-file", "/run/k", "--retain", "90d"];
        let options = config(&line).store_options();
        assert_eq!((options.erasures, options.erasure_key), ("e.log".into(), "/run/k".into()));
        assert_eq!(options.retain, Some(Duration::from_secs(90 * 86_400)));
    }

    #[test]
    fn a_retention_period_has_a_number_and_a_unit() {
        assert_eq!(retention("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(retention("2w"), Ok(Duration::from_secs(1_209_600)));
        for wrong in ["", "90", "d", "0d", "-1d", "1.5d", "90 d", "99999999999999999d", "5ü"] {
            assert!(retention(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for path in ["", ":memory:", "data/"] {
            let config = Config { db_path: path.into(), ..config(&[]) };
            assert!(matches!(config.validate(), Err(ConfigError::NoFile(_))), "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        assert!(matches!(config(&["--db-path", folder]).validate(), Err(ConfigError::Folder(_))));
        let missing = config(&["--backup-dir", "/no/such/folder"]);
        assert!(matches!(missing.validate(), Err(ConfigError::NoBackupFolder(_))));
        let same = config(&["--results-addr", "127.0.0.1:5003"]);
        assert_eq!(same.validate(), Err(ConfigError::SameAddress(same.admin_addr)));
        let free = config(&["--results-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
        assert_eq!(free.validate(), Ok(()));
    }
}
