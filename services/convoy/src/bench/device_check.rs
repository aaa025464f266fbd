//! `convoy device-check`: what the device is, whether its answers are the CPU's, how long each batch size takes on it,
//! and how much of that the server gets out of it.

mod compare;
mod ran;
mod report;

use super::loops::{self, Ask};
use super::raw::{Input, RawDevice, RawSessions, SessionShape};
use super::statistics::Latency;
use super::target::{Subject, Target};
use super::{BenchArgs, Client, Outputs, blocking, rows};
use crate::exit::Failure;
use crate::options::duration;
use clap::Parser as _;
use compare::{Difference, Pairs, Rules, TF32_OVERRIDE};
use convoy_proto::inference::model_metadata_response::TensorMetadata;
use model_serving::backend::onnx::OnnxRuntime;
use model_serving::backend::{
    Backend as _, BackendError, Device, ExecutionProvider, FailureKind, RawSession,
};
use model_serving::gpu;
use ran::Ran;
use report::{BatchRow, Checked, Copies, Gpu, Report, Served, Untimed};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// `convoy device-check`.
#[derive(clap::Args, Clone, Debug)]
pub struct DeviceCheckArgs {
    /// The device to check: auto takes a CUDA GPU when one can be used, else the CPU; cuda ends with exit code 69
    /// without.
    #[arg(long, env = "DEVICE", value_name = "auto|cpu|cuda[:N]", default_value_t = Device::Auto)]
    device: Device,

    /// The model repository that is served. Its default, or only, model is checked.
    #[arg(long, env = "MODEL_PATH", value_name = "PATH", default_value = "models")]
    model_path: PathBuf,

    /// Model to check. Default: the server's default model.
    #[arg(long, env = "DEFAULT_MODEL", value_name = "NAME")]
    model: Option<String>,

    /// ONNX Runtime's shared library. Default: as model-serving finds it.
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "PATH")]
    onnxruntime_lib: Option<PathBuf>,

    /// A photo to send, brought to the model's size. Default: patterns, in which a detector finds nothing.
    #[arg(long, env = "DEVICE_CHECK_PHOTO", value_name = "PATH")]
    photo: Option<PathBuf>,

    /// Batch sizes to time, in rows, separated by commas.
    #[arg(long, env = "DEVICE_CHECK_BATCH_SIZES", value_name = "ROWS", value_delimiter = ',', default_value = "1,2,4,8,16,32",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch_sizes: Vec<u16>,

    /// Length of each measurement, after a tenth of it that is not counted.
    #[arg(long, env = "DEVICE_CHECK_DURATION", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    duration: Duration,

    /// Print one JSON document instead of tables.
    #[arg(long, env = "DEVICE_CHECK_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

/// Checks the device, and prints what was found to standard output.
///
/// # Errors
/// [`Failure::CannotStart`] when the device or the model cannot be used, [`Failure::Failed`] when a run fails, and, after
/// the report, when the device does not compute what the CPU does, the server gets too little out of it, or requests failed.
#[allow(clippy::print_stdout, reason = "what the command is for")]
pub async fn run(args: DeviceCheckArgs) -> Result<(), Failure> {
    let report = check(&args).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&report);
        println!("{}", text.map_err(|error| Failure::Failed(format!("The report is no JSON: {error}.")))?);
    } else {
        print!("{report}");
    }
    let wrong = report.wrong();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("{}.", wrong.join("; ")))) }
}

/// The server's own settings, as `convoy bench` reads them.
#[derive(clap::Parser)]
struct Server {
    #[command(flatten)]
    args: BenchArgs,
}

async fn check(args: &DeviceCheckArgs) -> Result<Report, Failure> {
    let library = args.onnxruntime_lib.clone();
    let runtime = blocking(move || OnnxRuntime::load(library.as_deref())).await;
    let runtime = runtime.map_err(|error| Failure::CannotStart(error.to_string()))?;
    refuse(args.device, &runtime)?;

    let bench = bench_args(args)?;
    let target = Target::new(&bench).await?;
    let measured = measure(args, &bench, &target, &runtime).await;
    let stopped = tokio::task::spawn_blocking(move || target.stop()).await;
    let (ran, model, checked) = measured?;
    stopped.map_err(|error| Failure::Failed(format!("The server could not be stopped: {error}.")))??;
    Ok(Report {
        requested: args.device.to_string(),
        provider: ran.provider.as_str(),
        fallback_reason: ran.fallback_reason,
        gpu: ran.gpu.map(Gpu::from),
        cores: available_parallelism().map_or(1, usize::from),
        session_threads: session_threads(ran.provider),
        library: runtime.build_info(),
        model,
        checked,
    })
}

/// Refuses a GPU that cannot be had before a server is started for it.
fn refuse(device: Device, runtime: &OnnxRuntime) -> Result<(), Failure> {
    let Device::Cuda(number) = device else { return Ok(()) };
    let usable = match runtime.offers_cuda() {
        false => Err("the library of ONNX Runtime is built without CUDA".to_owned()),
        true => gpu::usable(i32::from(number)).map(drop),
    };
    usable.map_err(|reason| Failure::CannotStart(format!("The device {device} cannot be used: {reason}.")))
}

fn bench_args(args: &DeviceCheckArgs) -> Result<BenchArgs, Failure> {
    let mut words = vec!["convoy".into(), "--slo=none".into(), "--profile-cache=none".into()];
    let mut flag = |name: &str, value: &std::ffi::OsStr| words.extend([name.into(), value.to_owned()]);
    flag("--device", args.device.to_string().as_ref());
    flag("--model-path", args.model_path.as_os_str());
    for (name, value) in [("--onnxruntime-lib", &args.onnxruntime_lib), ("--photo", &args.photo)] {
        if let Some(value) = value {
            flag(name, value.as_os_str());
        }
    }
    if let Some(model) = &args.model {
        flag("--model", model.as_ref());
    }
    let parsed = Server::try_parse_from(words);
    parsed.map(|server| server.args).map_err(|error| Failure::Usage(error.to_string()))
}

async fn measure(
    args: &DeviceCheckArgs,
    bench: &BenchArgs,
    target: &Target,
    runtime: &OnnxRuntime,
) -> Result<(Ran, String, Checked), Failure> {
    let subject = Subject::of(target, bench).await?;
    let file = subject.file.clone().unwrap_or_default();
    let device = subject.device.clone();
    let provider = device.provider;
    let ran = Ran::of(args.device, &device, &subject.config);
    let tf32_override = std::env::var(TF32_OVERRIDE).ok();
    let rules = Rules::new(&subject.config, &device, tf32_override.as_deref());
    let raw = {
        let (args, runtime, file, device) = (args.clone(), runtime.clone(), file.clone(), device.clone());
        let max_rows = subject.max_rows;
        blocking(move || raw_runs(&args, &runtime, &file, &device, &rules, max_rows)).await?
    };
    let RawRuns { difference, pairs, batches, untimed } = raw;
    let best_single = best_within_reach(&batches);
    let largest = batches.iter().map(|batch| batch.rows).max().unwrap_or(1).min(subject.max_rows);
    let shapes = match provider.is_gpu() {
        true => SessionShape::on_gpu(largest),
        false => SessionShape::on(available_parallelism().map_or(1, usize::from)),
    };
    let shapes_best = {
        let (library, input, duration) = (args.onnxruntime_lib.clone(), subject.input.clone(), args.duration);
        blocking(move || best_shape(library.as_deref(), &file, &shapes, &device, input, duration))
            .await
            .map_err(Failure::Failed)?
    };
    let raw_best = best_single.max(shapes_best);
    let callers = if provider.is_gpu() { 4 * largest } else { 16 };
    let client = Client::connect(&target.authority, 4).await;
    let client =
        client.map_err(|error| Failure::Failed(format!("The server cannot be reached: {error}.")))?;
    let ask = Ask {
        client,
        messages: subject.messages.into(),
        objective: Duration::from_secs(60),
        read: bench.outputs == Outputs::Detections,
    };
    let seen = loops::closed(&ask, callers, 3 * args.duration).await;
    let served = Served {
        callers,
        images_per_s: seen.answered_per_s,
        raw_best_images_per_s: raw_best,
        percent_of_raw: 100.0 * seen.answered_per_s / raw_best,
        failed: seen.failed + seen.refused + seen.expired,
    };
    let not_checked = pairs.and_then(|pairs| pairs.not_checked(args.photo.is_some()));
    let pairs = pairs.filter(|_| not_checked.is_none());
    let model = format!("{} version {}", subject.model, subject.version);
    Ok((ran, model, Checked { difference, pairs, not_checked, batches, untimed, served }))
}

/// Threads that work on one operator of the raw session, the caller's included.
fn session_threads(provider: ExecutionProvider) -> usize {
    // On a GPU the processor only sees to it that the GPU has work.
    if provider.is_gpu() { 1 } else { available_parallelism().map_or(1, usize::from) }
}

/// What raw sessions showed.
struct RawRuns {
    difference: Vec<Difference>,
    pairs: Option<Pairs>,
    batches: Vec<BatchRow>,
    untimed: Option<Untimed>,
}

/// The most images a second of one session in batches that the server may make, too.
fn best_within_reach(batches: &[BatchRow]) -> f64 {
    let within = batches.iter().filter(|batch| !batch.beyond_server);
    within.map(|batch| batch.images_per_s).fold(0.0, f64::max)
}

/// Differences from the CPU, and times by batch size, where the server makes batches of up to `max_rows`. Blocking.
fn raw_runs(
    args: &DeviceCheckArgs,
    runtime: &OnnxRuntime,
    file: &Path,
    device: &RawDevice,
    rules: &Rules,
    max_rows: usize,
) -> Result<RawRuns, Failure> {
    let provider = device.provider;
    let open = |device: &RawDevice| {
        let options = device.options(session_threads(device.provider));
        runtime.open(file, &options).map_err(|error| {
            let provider = device.provider;
            Failure::CannotStart(format!("{} cannot be opened on {provider}: {error}.", file.display()))
        })
    };
    let mut session = open(device)?;
    let input = input_of(&session, args.photo.as_deref())?;
    let failed = |error| Failure::Failed(format!("The model fails on {provider}: {error}."));
    let names: Vec<String> = session.outputs().iter().map(|output| output.name.to_string()).collect();
    let (mut difference, mut pairs) = (Vec::new(), None);
    if provider.is_gpu() {
        let on_device = session.infer(&input.batch(&input.rows[0], 1)).map_err(failed)?;
        let mut cpu = open(&RawDevice { provider: ExecutionProvider::Cpu, ..device.clone() })?;
        let on_cpu = cpu.infer(&input.batch(&input.rows[0], 1)).map_err(failed)?;
        let both = names.iter().zip(on_device.iter().zip(&on_cpu));
        difference.extend(both.map(|(name, (device, cpu))| rules.compare(name, device, cpu)));
        let named = |outputs| names.iter().map(String::as_str).zip(outputs).collect::<Vec<_>>();
        pairs = rules.pairs(&named(&on_device), &named(&on_cpu));
    }
    let timed =
        time_sizes(&args.batch_sizes, max_rows, |rows| time(&mut session, &input, rows, args.duration));
    let (batches, untimed) = timed.map_err(failed)?;
    Ok(RawRuns { difference, pairs, batches, untimed })
}

/// Times sizes in their order, up to the first that fails: a model with a fixed batch dimension takes one size only, and a
/// GPU may have no memory for more. Those of more than `max_rows` are marked.
fn time_sizes(
    sizes: &[u16],
    max_rows: usize,
    mut time: impl FnMut(usize) -> Result<BatchRow, BackendError>,
) -> Result<(Vec<BatchRow>, Option<Untimed>), BackendError> {
    let mut batches = Vec::new();
    for rows in sizes.iter().copied().map(usize::from) {
        match time(rows) {
            Ok(row) => batches.push(BatchRow { beyond_server: rows > max_rows, ..row }),
            Err(error) if batches.is_empty() || error.kind() == FailureKind::DeviceLost => return Err(error),
            Err(error) => return Ok((batches, Some(Untimed { rows, reason: error.to_string() }))),
        }
    }
    Ok((batches, None))
}

fn input_of(session: &RawSession, photo: Option<&Path>) -> Result<Input, Failure> {
    let [spec] = session.inputs() else {
        return Err(Failure::Failed("The model has not exactly one input.".to_owned()));
    };
    let tensor = TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.as_str().to_owned(),
        shape: spec.dims.clone(),
    };
    rows::input(&tensor, photo).map_err(Failure::Usage)
}

fn time(
    session: &mut RawSession,
    input: &Input,
    rows: usize,
    duration: Duration,
) -> Result<BatchRow, BackendError> {
    let data = input.data(rows);
    let batch = input.batch(&data, rows);
    // The first run of a size chooses kernels and takes memory.
    session.infer(&batch)?;
    let counted_from = Instant::now() + duration / 10;
    let until = counted_from + duration;
    let mut latencies = Vec::new();
    // A batch that takes longer than all the time is timed once.
    while latencies.is_empty() || Instant::now() < until {
        let started = Instant::now();
        let outputs = session.infer(&batch)?;
        let took = started.elapsed();
        drop(outputs);
        if started >= counted_from {
            latencies.push(took);
        }
    }
    let latency = Latency::of(latencies);
    Ok(BatchRow {
        rows,
        p50_ms: latency.p50_ms,
        p99_ms: latency.p99_ms,
        images_per_s: 1e3 * rows as f64 / latency.mean_ms,
        beyond_server: false,
        copies: copies(session, input, rows, duration / 4)?,
    })
}

/// Medians of a run's parts, where something is copied.
fn copies(
    session: &mut RawSession,
    input: &Input,
    rows: usize,
    duration: Duration,
) -> Result<Option<Copies>, BackendError> {
    let data = input.data(rows);
    let batch = input.batch(&data, rows);
    let until = Instant::now() + duration;
    let (mut copy_in, mut compute, mut copy_out) = (Vec::new(), Vec::new(), Vec::new());
    while copy_in.is_empty() || Instant::now() < until {
        let Some(parts) = session.time_parts(&batch)? else { return Ok(None) };
        copy_in.push(parts.copy_in);
        compute.push(parts.compute);
        copy_out.push(parts.copy_out);
    }
    let median = |parts| Latency::of(parts).p50_ms;
    Ok(Some(Copies {
        copy_in_ms: median(copy_in),
        compute_ms: median(compute),
        copy_out_ms: median(copy_out),
    }))
}

/// The most that sessions reach side by side. Blocking.
fn best_shape(
    library: Option<&Path>,
    file: &Path,
    shapes: &[SessionShape],
    device: &RawDevice,
    input: Input,
    duration: Duration,
) -> Result<f64, String> {
    let mut sessions = RawSessions::open(library, file, shapes, device, input)?;
    let mut best = 0.0_f64;
    for at in 0..shapes.len() {
        best = best.max(sessions.run(at, duration)?.1.images_per_s);
    }
    Ok(best)
}

#[cfg(test)]
mod tests;
