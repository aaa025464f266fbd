//! Convoy in this process, on free ports. Most tests share one: it costs a second or two to start.

use crate::photo::repository;
use convoy::cli::{Cli, Command};
use convoy::fleet::Fleet;
use convoy::ready_file::Addresses;
use convoy::supervise::Program as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take that is waited for. A slow machine must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running Convoy. It ends with the test's process.
pub(crate) struct Convoy {
    pub(crate) addresses: Addresses,
    /// The SQLite file.
    pub(crate) database: PathBuf,
    _fleet: Fleet,
    _runtime: Runtime,
}

impl Convoy {
    /// The one that tests share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Convoy> = OnceLock::new();
        // On a thread of its own: the caller's may be inside another runtime.
        SHARED.get_or_init(|| std::thread::spawn(Self::start).join().expect("Convoy starts"))
    }

    fn start() -> Self {
        let folder = data_folder();
        let database = folder.path().join("predictions.db");
        let arguments = ["convoy", "up"].map(OsString::from).into_iter().chain(up_arguments(&database));
        let cli = Cli::read(arguments).expect("the arguments are valid").expect("no help was asked for");
        let Command::Up(up) = cli.command else { panic!("the command is up") };
        up.validate().expect("the configuration is valid");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let fleet = runtime.block_on(async {
            let mut fleet = up.start().await.expect("Convoy starts");
            let ready = fleet.ready();
            tokio::select! {
                ended = fleet.ended_by_itself() => panic!("{ended}"),
                () = ready => {}
                () = tokio::time::sleep(PATIENCE) => panic!("not ready: {:?}", fleet.waiting_for()),
            }
            fleet
        });
        // The database lives as long as the process; what is left is in Cargo's own folder for that.
        let _ = folder.keep();
        Self { addresses: *fleet.addresses(), database, _fleet: fleet, _runtime: runtime }
    }

    /// A URL of feature-service.
    pub(crate) fn feature(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.feature.unwrap())
    }

    /// A URL of results-service.
    pub(crate) fn results(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.results.unwrap())
    }
}

/// A folder that is removed when the value drops.
pub(crate) fn data_folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The arguments of `convoy up` on free ports with the repository's models.
pub(crate) fn up_arguments(database: &Path) -> Vec<OsString> {
    up_arguments_of(&repository().join("models"), database)
}

/// The same with other `models`.
pub(crate) fn up_arguments_of(models: &Path, database: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    for flag in
        ["--grpc-addr", "--http-addr", "--metrics-addr", "--feature-addr", "--results-addr", "--admin-addr"]
    {
        arguments.extend([flag.into(), "127.0.0.1:0".into()]);
    }
    arguments.extend(["--model-path".into(), models.into()]);
    arguments.extend(["--db-path".into(), database.into()]);
    arguments.extend(model_serving_arguments());
    arguments
}

/// What model-serving is told in tests: nothing is refused for being late, however slow the machine, and nothing is
/// written into the user's own cache. What is measured while the model loads is not what these tests are about.
pub(crate) fn model_serving_arguments() -> Vec<OsString> {
    let mut arguments = onnxruntime_arguments();
    arguments.extend(["--slo=none", "--profile-cache=none", "--profile-time=300ms"].map(OsString::from));
    arguments
}

/// The library that set-up put into the repository, wherever the build folder is; ORT_DYLIB_PATH names another.
pub(crate) fn onnxruntime_arguments() -> Vec<OsString> {
    let library = repository().join(".convoy/onnxruntime/libonnxruntime.so");
    if std::env::var_os("ORT_DYLIB_PATH").is_some() || !library.is_file() {
        return Vec::new();
    }
    vec!["--onnxruntime-lib".into(), library.into()]
}

/// An id that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4())
}
