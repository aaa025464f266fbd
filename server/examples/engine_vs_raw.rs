//! The scheduler against raw sessions of ONNX Runtime, in one process and the same minutes: what queue, batching and
//! threads cost when no network is in the way.
//!
//! ```text
//! cargo run --release -p model-serving --example engine_vs_raw -- [MODELS [ROUNDS [SECONDS]]]
//! ```
//!
//! In each round, for so many seconds each: raw sessions of one thread, one for each core; the scheduler with 16
//! callers; one raw session with all cores; the scheduler with one caller. Medians of the rounds, and of their ratios.

#![allow(clippy::print_stdout, clippy::expect_used)]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model_serving::backend::onnx::{OnnxRuntime, SessionOptions};
use model_serving::backend::{Backend as _, Batch, BatchInput, Device, ExecutionProvider, RawSession};
use model_serving::repository::{InferenceRequest, ModelRepository, ModelVersion, RepositoryConfig};
use model_serving::scheduler::NoObserver;
use model_serving::tensor::{Shape, Tensor};

/// Callers of the loaded scheduler.
const CALLERS: usize = 16;

/// What one part of a round gave.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    /// Processor time of the whole process.
    cpu_ms_a_call: f64,
}

fn main() {
    let filter = tracing_subscriber::EnvFilter::new("warn,model_serving=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let models = arguments.next().unwrap_or_else(|| "models".to_owned());
    let mut number = |default: u32| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (rounds, time) = (number(5), Duration::from_secs(number(3).into()));

    let config = RepositoryConfig { device: Device::Cpu, slo: None, ..RepositoryConfig::new(&models) };
    let repository = ModelRepository::load(&config, Arc::new(NoObserver)).expect("the models can be served");
    let model = repository.get("", "").expect("there is one model, or a default one");
    let file = std::path::Path::new(&models).join(model.name()).join(model.version()).join("model.onnx");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime = OnnxRuntime::load(None).expect("the library was loaded before");
    let open = |threads| {
        let options = SessionOptions::new(ExecutionProvider::Cpu, 0, threads);
        runtime.open(&file, &options).expect("the model was opened before")
    };
    let mut narrow: Vec<RawSession> = (0..cores).map(|_| open(1)).collect();
    let mut wide = [open(cores)];
    let tokio = tokio::runtime::Builder::new_multi_thread().build().expect("threads can be started");
    let row = row(&model);

    let mut figures: [Vec<Figures>; 4] = Default::default();
    for round in 0..=rounds {
        let parts = [
            raw(&mut narrow, &row, time),
            tokio.block_on(engine(&model, &row, CALLERS, time)),
            raw(&mut wide, &row, time),
            tokio.block_on(engine(&model, &row, 1, time)),
        ];
        // The first round warms what was not warm.
        if round > 0 {
            figures.iter_mut().zip(parts).for_each(|(figures, part)| figures.push(part));
        }
    }
    let names = [
        format!("raw, {cores} sessions x 1 thread"),
        format!("scheduler, {CALLERS} callers"),
        format!("raw, 1 session x {cores} threads"),
        "scheduler, 1 caller".to_owned(),
    ];
    for (name, figures) in names.iter().zip(&figures) {
        let of = |value: fn(&Figures) -> f64| median(figures.iter().map(value));
        println!(
            "{name:28} {:7.1} images/s   p50 {:7.3} ms   {:6.2} ms of CPU a call",
            of(|f| f.per_second),
            of(|f| f.p50_ms),
            of(|f| f.cpu_ms_a_call)
        );
    }
    let [narrow, loaded, wide, lone] = &figures;
    let throughput =
        median(narrow.iter().zip(loaded).map(|(raw, engine)| engine.per_second / raw.per_second));
    let added = median(wide.iter().zip(lone).map(|(raw, engine)| engine.p50_ms - raw.p50_ms));
    println!("{CALLERS} callers: {:.1} % of raw; 1 caller: p50 {added:+.3} ms", throughput * 100.0);
    repository.shutdown();
}

/// One row of noise for the model's only input.
fn row(model: &ModelVersion) -> Tensor {
    let [input] = model.inputs() else { panic!("the model has one input") };
    let mut dims = input.dims.clone();
    dims.insert(0, 1);
    let shape = Shape::from(dims);
    let bytes = shape.byte_count(input.datatype).expect("the input's dimensions are fixed");
    let data: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 300) as u8 & 0x3f).collect();
    Tensor { name: input.name.to_string(), datatype: input.datatype, shape, data: Bytes::from(data) }
}

/// Every session in a loop of its own.
fn raw(sessions: &mut [RawSession], row: &Tensor, time: Duration) -> Figures {
    measure(|| {
        let until = Instant::now() + time;
        thread::scope(|scope| {
            let loops: Vec<_> = sessions
                .iter_mut()
                .map(|session| {
                    scope.spawn(move || {
                        let mut latencies = Vec::new();
                        while Instant::now() < until {
                            let started = Instant::now();
                            let input = BatchInput {
                                name: &row.name,
                                datatype: row.datatype,
                                shape: row.shape.clone(),
                                data: &row.data,
                            };
                            let outputs = session.infer(&Batch { rows: 1, inputs: vec![input] });
                            drop(outputs.expect("the model takes this"));
                            latencies.push(started.elapsed());
                        }
                        latencies
                    })
                })
                .collect();
            loops.into_iter().flat_map(|thread| thread.join().expect("no loop panics")).collect()
        })
    })
}

/// Every caller in a loop of its own.
async fn engine(model: &Arc<ModelVersion>, row: &Tensor, callers: usize, time: Duration) -> Figures {
    let (started, cpu) = (Instant::now(), cpu_time());
    let until = started + time;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (model, row) = (Arc::clone(model), row.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let started = Instant::now();
                    let request =
                        InferenceRequest { inputs: vec![row.clone()], ..InferenceRequest::default() };
                    drop(model.infer(request, None).await.expect("the model takes this"));
                    latencies.push(started.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no caller panics"));
    }
    figures(latencies, started.elapsed(), cpu_time() - cpu)
}

fn measure(run: impl FnOnce() -> Vec<Duration>) -> Figures {
    let (started, cpu) = (Instant::now(), cpu_time());
    let latencies = run();
    figures(latencies, started.elapsed(), cpu_time() - cpu)
}

fn figures(latencies: Vec<Duration>, elapsed: Duration, cpu_seconds: f64) -> Figures {
    let calls = latencies.len() as f64;
    Figures {
        per_second: calls / elapsed.as_secs_f64(),
        p50_ms: median(latencies.iter().map(|latency| latency.as_secs_f64() * 1e3)),
        cpu_ms_a_call: cpu_seconds * 1e3 / calls,
    }
}

/// Seconds of processor time that this process has used, as Linux counts them; 0 elsewhere.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, the only field with spaces: user and system time are the 12th and the 13th, in
    // hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
