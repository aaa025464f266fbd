//! Unloading a model returns its memory. What is measured is a process, so each measurement has one of its own: this
//! test's own program again, with the settings of the allocator that it is to have.
//!
//! Seen with the detector (18 MB file, batches of 8), resident MiB: 26 with ONNX Runtime alone, 250 loaded, 320 after it
//! was loaded again, 105 to 200 unloaded. All of what stays is glibc's, for the next load: it does not grow, and
//! `malloc_trim` (which safe code cannot call) brings it to 43. With a fixed threshold for blocks of their own, which
//! `MALLOC_MMAP_THRESHOLD_` is, with 1 MiB 75 to 140 stay, with 2 MiB, as the server has it, 110 to 205, with 8 MiB 170 to 240.

#![allow(clippy::unwrap_used)]

use model_serving::repository::{
    ControlParameters, InferenceRequest, ModelControlMode, ModelRepository, RepositoryConfig,
};
use model_serving::scheduler::NoObserver;
use model_serving::tensor::{DataType, Shape, Tensor};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const MODEL: &str = "vehicle-detector";
const ROUNDS: usize = 4;
/// Set for the process that measures.
const MEASURE: &str = "MODEL_SERVING_TEST_MEASURE_MEMORY";
/// What starts a line of measurements.
const LINE: &str = "resident MiB: ";

/// Resident memory in MiB, with ONNX Runtime loaded and nothing else.
struct Measured {
    start: f64,
    /// Loaded twice, the first one ended; then unloaded.
    rounds: Vec<(f64, f64)>,
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Runs [`measures`] in a process with `variables`.
fn measure(variables: &[(&str, &str)]) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "measures", "--nocapture"])
        .env(MEASURE, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().filter_map(|line| line.split_once(LINE).map(|(_, numbers)| numbers));
    let mut lines =
        lines.map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<f64>>());
    let start = lines.next().unwrap()[0];
    Measured { start, rounds: lines.map(|numbers| (numbers[0], numbers[1])).collect() }
}

/// Does nothing unless it runs in a process of [`measure`].
#[tokio::test]
async fn measures() {
    if std::env::var_os(MEASURE).is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Always the same sessions: which are chosen by measuring depends on what else the machine does.
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (root.join("models").join(MODEL), folder.path().join(MODEL));
    std::fs::create_dir_all(to.join("1")).unwrap();
    for file in ["1/model.onnx", "labels.txt"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(from.join("config.pbtxt")).unwrap();
    let group = "instance_group [ { count: 2 kind: KIND_CPU } ]";
    std::fs::write(to.join("config.pbtxt"), format!("{text}\n{group}\n")).unwrap();
    let config = RepositoryConfig {
        control_mode: ModelControlMode::Explicit,
        onnxruntime_lib: Some(root.join(".convoy/onnxruntime/libonnxruntime.so")),
        profile_time: Duration::from_millis(1),
        slo: None,
        ..RepositoryConfig::new(folder.path())
    };
    let repository = ModelRepository::open(&config, Arc::new(NoObserver)).unwrap();
    let mut lines = vec![format!("{LINE}{:.1}", resident_mib())];
    for _ in 0..ROUNDS {
        for _ in 0..2 {
            repository.load_model(MODEL, ControlParameters::new()).await.unwrap();
            serve(&repository).await;
        }
        let loaded = resident_mib();
        repository.unload_model(MODEL, ControlParameters::new()).await.unwrap();
        lines.push(format!("{LINE}{loaded:.1} {:.1}", resident_mib()));
    }
    use std::io::Write as _;
    writeln!(std::io::stdout(), "\n{}", lines.join("\n")).unwrap();
}

async fn serve(repository: &ModelRepository) {
    let model = repository.get(MODEL, "").unwrap();
    let image = Tensor {
        name: "images".to_owned(),
        datatype: DataType::Uint8,
        shape: Shape::from([8, 300, 300, 3]),
        data: vec![127; 8 * 300 * 300 * 3].into(),
    };
    model.infer(InferenceRequest { inputs: vec![image], ..InferenceRequest::default() }, None).await.unwrap();
}

#[test]
fn unloading_returns_memory() {
    // With glibc's own settings: sessions that stayed would cost over 200 MiB in each round, while what the allocator keeps
    // of each thread's memory is used again sooner or later.
    let Measured { rounds, .. } = measure(&[]);
    let (first, last) = (rounds[0], rounds[ROUNDS - 1]);
    assert!(last.0 < first.0 + 300.0, "what is loaded grows: {rounds:?}");
    assert!(rounds.iter().all(|(loaded, unloaded)| *unloaded < loaded - 60.0), "{rounds:?}");
    // As servers run (services/convoy/src/allocator.rs): most of it goes back to the system at once.
    let Measured { start, rounds } = measure(&[
        ("MALLOC_MMAP_THRESHOLD_", "2097152"),
        ("MALLOC_TRIM_THRESHOLD_", "8388608"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ]);
    for (loaded, unloaded) in &rounds {
        let (took, kept) = (loaded - start, unloaded - start);
        assert!(kept < took / 2.0, "of {took:.0} MiB {kept:.0} are kept: {rounds:?}");
    }
}
