//! `convoy bench`: the server beside raw ONNX Runtime, in the same minutes on the same machine.
//!
//! Machines that are shared run faster and slower from minute to minute. So everything is measured in rounds, each of
//! which measures raw sessions and then the server under every load, and the server is compared with the raw figures
//! of its own round.

mod client;
mod device_check;
mod load;
mod loops;
mod raw;
mod report;
mod rows;
mod statistics;
mod target;

use crate::exit::Failure;
use crate::options::{SandboxArgs, duration};
use crate::single::cannot_start;
use client::Client;
use load::Rate;
use loops::Ask;
use raw::RawSessions;
use report::{RawRow, Report, ServerRow, reference};
use service_kit::telemetry::{self, LogFormat, LogLevel};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;
use target::{Subject, Target};

pub use device_check::{DeviceCheckArgs, run as run_device_check};

/// Flags of model-serving that `bench` answers itself.
pub(crate) const OWN_ADDRESSES: [&str; 3] = ["grpc_addr", "http_addr", "metrics_addr"];

/// Every measurement's callers, and what they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Outputs {
    /// The output `detections` of a detector: some KB an answer.
    Detections,
    /// All outputs of the model file.
    Raw,
}

/// `convoy bench`: its own flags, and those of the server that it starts.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// gRPC address (HOST:PORT) of a server that runs already. Default: one is started in this process on a free
    /// port, with the settings below.
    #[arg(long, env = "BENCH_URL", value_name = "HOST:PORT")]
    url: Option<String>,

    /// Model to ask. Default: the server's default model.
    #[arg(long, env = "BENCH_MODEL", value_name = "NAME")]
    model: Option<String>,

    /// The model's file, for raw ONNX Runtime. Default: that of the server started here; needed with --url.
    #[arg(long, env = "BENCH_MODEL_FILE", value_name = "PATH")]
    model_file: Option<PathBuf>,

    /// What is asked for: the output `detections`, or all outputs of the model.
    #[arg(long, env = "BENCH_OUTPUTS", value_enum, default_value_t = Outputs::Detections)]
    outputs: Outputs,

    /// Closed loops: numbers of callers, separated by commas; each sends its next request when it has its answer.
    #[arg(long, env = "BENCH_CONCURRENCY", value_name = "CALLERS", value_delimiter = ',', default_value = "1,4,16,64",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Vec<u16>,

    /// Open loops: requests a second that arrive at random (Poisson) whatever becomes of those before them, as a
    /// number or as a multiple of raw ONNX Runtime's throughput (2x), separated by commas. Default: none.
    #[arg(long, env = "BENCH_OPEN_LOOP", value_name = "RATES", value_delimiter = ',')]
    open_loop: Vec<Rate>,

    /// Time within which an answer of an open loop counts. Default: --slo, else 100ms.
    #[arg(long, env = "BENCH_OBJECTIVE", value_name = "DURATION", value_parser = duration)]
    objective: Option<Duration>,

    /// Length of each measurement, after a tenth of it that is not counted.
    #[arg(long, env = "BENCH_DURATION", value_name = "DURATION", default_value = "3s", value_parser = duration)]
    duration: Duration,

    /// Rounds; each measures everything once. Medians over them are shown.
    #[arg(long, env = "BENCH_ROUNDS", value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// HTTP/2 connections that the callers share.
    #[arg(long, env = "BENCH_CONNECTIONS", value_name = "COUNT", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Print JSON, with every round, instead of tables.
    #[arg(long, env = "BENCH_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,

    /// A photo to send, brought to the model's size. Default: patterns, in which a detector finds nothing.
    #[arg(long, env = "BENCH_PHOTO", value_name = "PATH")]
    photo: Option<PathBuf>,

    /// Which events of the server started here are logged, to standard error. A server in production writes an audit
    /// line for each prediction: to measure with them, say info, and send standard error to a file.
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "off")]
    log_level: LogLevel,

    #[command(flatten, next_help_heading = "The server started here")]
    server: model_serving::Config,
    #[command(flatten, next_help_heading = "The server's preprocessing")]
    sandbox: SandboxArgs,
}

impl BenchArgs {
    fn validate(&self) -> Result<(), Failure> {
        if self.url.is_some() && self.model_file.is_none() {
            return Err(Failure::Usage(
                "--url (BENCH_URL) names a server whose model file is not known: give --model-file \
                 (BENCH_MODEL_FILE) too."
                    .to_owned(),
            ));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.duration) {
            return Err(Failure::Usage(format!(
                "--duration (BENCH_DURATION) is {:?}, but must be between 100ms and 1h.",
                self.duration
            )));
        }
        Ok(())
    }

    fn objective(&self) -> Duration {
        let server = self.url.is_none().then(|| self.server.slo.limit()).flatten();
        self.objective.or(server).unwrap_or(Duration::from_millis(100))
    }
}

/// Measures, and prints what was measured to standard output.
///
/// # Errors
/// [`Failure::Usage`] before anything is measured; [`Failure::CannotStart`] then, or when the system has no thread for an open
/// loop; [`Failure::Failed`] when the server or the model fails.
pub async fn run(args: BenchArgs) -> Result<(), Failure> {
    args.validate()?;
    // Tests run this twice in a process; whoever logged first goes on.
    let _ = telemetry::init(&args.log_level, LogFormat::for_stderr());
    let target = Target::new(&args).await?;
    let measured = measure(&target, &args).await;
    let stopped = tokio::task::spawn_blocking(move || target.stop()).await;
    let report = measured?;
    stopped.map_err(|error| Failure::Failed(format!("The server could not be stopped: {error}.")))??;
    print(&report, args.json)
}

#[allow(clippy::print_stdout, reason = "what the command is for")]
fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(report);
        println!("{}", text.map_err(|error| Failure::Failed(format!("The report is no JSON: {error}.")))?);
    } else {
        print!("{report}");
    }
    Ok(())
}

async fn measure(target: &Target, args: &BenchArgs) -> Result<Report, Failure> {
    let subject = Subject::of(target, args).await?;
    let cores = available_parallelism().map_or(1, usize::from);
    let device = subject.device.clone();
    let shapes = device.shapes(cores, subject.max_rows);
    let file = subject.file.clone().unwrap_or_default();
    let (library, input) = (args.server.onnxruntime_lib.clone(), subject.input.clone());
    let opened = {
        let shapes = shapes.clone();
        blocking(move || RawSessions::open(library.as_deref(), &file, &shapes, &device, input)).await
    };
    let mut raw = opened.map_err(Failure::CannotStart)?;
    let client =
        Client::connect(&target.authority, usize::from(args.connections)).await.map_err(|error| {
            Failure::Failed(format!("The server at {} cannot be reached: {error}.", target.authority))
        })?;
    let objective = args.objective();
    let ask = Ask {
        client,
        messages: subject.messages.into(),
        objective,
        read: args.outputs == Outputs::Detections,
    };
    let rounds = usize::from(args.rounds);
    let mut raw_seen = vec![Vec::new(); shapes.len()];
    let mut references = Vec::with_capacity(rounds);
    let mut closed = vec![Vec::new(); args.concurrency.len()];
    let mut open = vec![Vec::new(); args.open_loop.len()];
    for round in 0..rounds {
        let mut of_round = Vec::with_capacity(shapes.len());
        for (at, rounds) in raw_seen.iter_mut().enumerate() {
            let duration = args.duration;
            let (back, ran) = blocking(move || {
                let ran = raw.run(at, duration);
                (raw, ran)
            })
            .await;
            raw = back;
            let (shape, seen) = ran.map_err(Failure::Failed)?;
            rounds.push(seen.clone());
            of_round.push((shape, seen));
        }
        let reference = reference(&of_round);
        for (&callers, rounds) in args.concurrency.iter().zip(&mut closed) {
            rounds.push(loops::closed(&ask, usize::from(callers), args.duration).await);
        }
        for (rate, rounds) in args.open_loop.iter().zip(&mut open) {
            let rate = rate.per_second(reference.throughput);
            let seen = loops::open(&ask, rate, args.duration, round as u64 + 1).await;
            rounds.push(seen.map_err(cannot_start)?);
        }
        references.push(reference);
    }
    let raw = shapes.into_iter().zip(raw_seen).map(|(shape, rounds)| RawRow::new(shape, rounds));
    let row = |load: String, rounds, in_time| ServerRow::new(load, rounds, &references, in_time);
    let closed =
        args.concurrency.iter().zip(closed).map(|(load, rounds)| row(load.to_string(), rounds, false));
    let open = args.open_loop.iter().zip(open).map(|(load, rounds)| row(load.to_string(), rounds, true));
    Ok(Report {
        model: subject.model,
        version: subject.version,
        datatype: format!("{} {}", subject.input.datatype, subject.input.shape),
        outputs: if args.outputs == Outputs::Raw { "all raw outputs" } else { "detections" }.to_owned(),
        server: match &args.url {
            Some(url) => format!("server at {url}"),
            None => format!("server in this process, --slo {}", args.server.slo),
        },
        rounds,
        seconds_per_measurement: args.duration.as_secs_f64(),
        objective_ms: statistics::milliseconds(objective),
        cores,
        raw: raw.collect(),
        closed: closed.collect(),
        open: open.collect(),
    })
}

/// Runs `work` on a thread on which it may block.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the runtime is not shut down while it runs this, and raw runs do not panic")
}

#[cfg(test)]
mod tests;
