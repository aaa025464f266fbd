//! What an operator can set, and the check before any port is bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

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
    /// Both faces on one port.
    #[error("--results-addr and --admin-addr are both {0}: give each a port of its own.")]
    SameAddress(SocketAddr),
}

impl Config {
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
    fn what_cannot_work_is_refused() {
        for path in ["", ":memory:", "data/"] {
            let config = Config { db_path: path.into(), ..config(&[]) };
            assert!(matches!(config.validate(), Err(ConfigError::NoFile(_))), "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        assert!(matches!(config(&["--db-path", folder]).validate(), Err(ConfigError::Folder(_))));
        let same = config(&["--results-addr", "127.0.0.1:5003"]);
        assert_eq!(same.validate(), Err(ConfigError::SameAddress(same.admin_addr)));
        let free = config(&["--results-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
        assert_eq!(free.validate(), Ok(()));
    }
}
