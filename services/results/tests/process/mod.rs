//! The service as a process of its own, so that it can be killed: this test's own program, told to serve.
#![allow(dead_code, reason = "each test that uses this module uses a part of it")]

use results_service::{Config, Listeners, run};
use service_kit::{Readiness, Shutdown};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "RESULTS_TEST_FOLDER";
/// How long a start may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("predictions.db")
}

fn address_file(folder: &Path) -> PathBuf {
    folder.join("address")
}

/// What the ignored test `serve` of each program does.
pub(crate) async fn serve() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = PathBuf::from(folder);
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        results_addr: any_port,
        admin_addr: any_port,
        db_path: database(&folder),
        erasures: None,
        erasure_key_file: None,
        retain: None,
        backup_dir: None,
    };
    let listeners = Listeners::bind(&config).await.unwrap();
    // In one step, so that no half of it is read.
    let unfinished = folder.join("address.new");
    std::fs::write(&unfinished, listeners.addr().to_string()).unwrap();
    std::fs::rename(&unfinished, address_file(&folder)).unwrap();
    run(config, listeners, Readiness::new(), Shutdown::new()).await.unwrap();
}

/// It is killed when the value drops.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(folder: &Path) -> Self {
        let _ = std::fs::remove_file(address_file(folder));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "it does not start");
            assert!(process.child.try_wait().unwrap().is_none(), "it ended");
            if let Ok(text) = std::fs::read_to_string(address_file(folder)) {
                process.address = text.parse().unwrap();
                let ready = reqwest::get(process.url("/ready")).await;
                if ready.is_ok_and(|answer| answer.status() == 200) {
                    return process;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `PRAGMA integrity_check` says.
pub(crate) fn integrity(database: &Path) -> String {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// The ids of all predictions, as they are stored.
pub(crate) fn request_ids(database: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT request_id FROM predictions").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
