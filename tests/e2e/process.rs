//! The real binary as a process: for signals, exit codes and kill -9.

use crate::fixture::{PATIENCE, data_folder, up_arguments};
use convoy::ready_file::Addresses;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// The binary, built once by the Cargo that runs the tests and with their profile: it belongs to another package, so
/// Cargo names it to no test of this one.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // <target folder>/<profile's folder>/deps/e2e-<hash>
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap();
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--locked", "--package", "convoy", "--bin", "convoy"])
            .args(["--profile", profile, "--target-dir"])
            .arg(folder.parent().unwrap());
        let output = build.output().expect("cargo runs");
        assert!(output.status.success(), "{build:?}:\n{}", String::from_utf8_lossy(&output.stderr));
        folder.join("convoy")
    })
}

/// Runs a command of the binary to its end.
pub(crate) fn run<I: Into<OsString>>(arguments: impl IntoIterator<Item = I>) -> Output {
    Command::new(binary()).args(arguments.into_iter().map(Into::into)).output().unwrap()
}

/// The standard error of a command, as text.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `convoy up`, or one of its services, as a process of its own. It is killed when the value drops.
pub(crate) struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts `up` with more `flags`, on free ports and the database that `folder` holds. It is not ready yet.
    pub(crate) fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let mut arguments = up_arguments(&folder.path().join("predictions.db"));
        arguments.extend(flags.iter().map(OsString::from));
        Self::start("up", arguments, folder)
    }

    /// Starts any subcommand that runs services. Its ready file and its log are in `folder`.
    pub(crate) fn start(subcommand: &str, arguments: Vec<OsString>, folder: TempDir) -> Self {
        // Of a process that was killed here before.
        let _ = std::fs::remove_file(folder.path().join("ready.json"));
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary())
            .arg(subcommand)
            .args(arguments)
            .arg("--ready-file")
            .arg(folder.path().join("ready.json"))
            .args(["--log-format", "json"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Starts it with more `flags` on an empty database, and waits until it is ready.
    pub(crate) fn ready(flags: &[&str]) -> (Self, Addresses) {
        let mut process = Self::start_in(data_folder(), flags);
        let addresses = process.wait_ready();
        (process, addresses)
    }

    /// Waits for the ready file.
    pub(crate) fn wait_ready(&mut self) -> Addresses {
        let path = self.folder.path().join("ready.json");
        self.wait_for("the ready file", || std::fs::read(&path).ok());
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    }

    /// Waits until the log holds `text`.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let path = self.folder.path().join("log");
        self.wait_for(text, || std::fs::read_to_string(&path).ok().filter(|log| log.contains(text)));
    }

    fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended ({}) before {what}:\n{}", ended.unwrap(), self.log());
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", self.log());
            sleep(POLL);
        }
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            sleep(POLL);
        }
    }

    /// Kills it as the system does when memory runs out, and hands over what it left behind.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, data_folder())
    }

    /// Its number, for what the system tells of it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Where its ready file is.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that has ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
