//! Flags that several subcommands share.

use crate::exit::Failure;
use sandbox::{Sandbox, SandboxConfig};
use service_kit::telemetry::{self, LogFormat, LogLevel};
use std::path::PathBuf;
use std::time::Duration;

/// How a process with services logs, says that it is ready, and stops.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct ProcessArgs {
    /// Which events are logged: off, error, warn, info, debug, trace, or directives such as
    /// `info,model_serving=debug`. Audit lines are written at every level but `off`; `audit=off` leaves them out.
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,

    /// How log lines are written to standard error. Default: text on a terminal, else json.
    #[arg(long, env = "LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// Time after SIGTERM or SIGINT during which everything is unready but still accepted and served, so that load
    /// balancers can turn away first. With a unit: 500ms, 2s, 1m.
    #[arg(long, env = "SHUTDOWN_DELAY", value_name = "DURATION", default_value = "0s",
          value_parser = duration)]
    pub shutdown_delay: Duration,

    /// Time the whole stop may take, --shutdown-delay included; then the process ends with exit code 1. With a unit:
    /// 30s, 2m.
    #[arg(long, env = "SHUTDOWN_GRACE", value_name = "DURATION", default_value = "30s",
          value_parser = duration)]
    pub shutdown_grace: Duration,

    /// File that gets the bound addresses as JSON, {"grpc":"127.0.0.1:50051",…}, once everything is ready. It is
    /// written in one step, and removed at the start and when the process stops being ready.
    #[arg(long, env = "READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

impl ProcessArgs {
    /// Checks what can be known before a port is bound.
    ///
    /// # Errors
    /// [`Failure::Usage`] for the first setting that cannot work.
    pub fn validate(&self) -> Result<(), Failure> {
        if self.shutdown_delay >= self.shutdown_grace {
            return Err(Failure::Usage(format!(
                "The shutdown delay of {:?} leaves nothing of the grace period of {:?}: make --shutdown-grace \
                 (SHUTDOWN_GRACE) longer than --shutdown-delay (SHUTDOWN_DELAY).",
                self.shutdown_delay, self.shutdown_grace
            )));
        }
        if let Some(path) = &self.ready_file {
            crate::ready_file::check(path)?;
        }
        Ok(())
    }

    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// When logging was started before.
    pub fn start_logging(&self) -> Result<(), Failure> {
        let format = self.log_format.unwrap_or_else(LogFormat::for_stderr);
        telemetry::init(&self.log_level, format)
            .map_err(|error| Failure::CannotStart(format!("Logging could not be started: {error}.")))
    }
}

/// How images are preprocessed.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct SandboxArgs {
    /// A WASM component to use for preprocessing instead of the one in this binary.
    #[arg(long, env = "PREPROCESS_COMPONENT", value_name = "PATH")]
    pub preprocess_component: Option<PathBuf>,

    /// Threads that preprocess images: how many images at once. Default: the processor's cores.
    #[arg(long, env = "PREPROCESS_WORKERS", value_name = "THREADS",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub preprocess_workers: Option<u16>,

    /// Images that may wait for one of these threads; the next one is refused at once with 429 or RESOURCE_EXHAUSTED.
    #[arg(long, env = "PREPROCESS_QUEUE", value_name = "IMAGES", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub preprocess_queue: u32,
}

impl SandboxArgs {
    /// Checks what can be known before a port is bound.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the component is not there.
    pub fn validate(&self) -> Result<(), Failure> {
        match &self.preprocess_component {
            Some(path) if !path.is_file() => Err(Failure::Usage(format!(
                "There is no component at {}: set --preprocess-component (PREPROCESS_COMPONENT) to a WASM component, \
                 or leave it out.",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Compiles the component and starts its threads. `max_image_bytes` is the largest encoded image, where a
    /// service has a setting for it.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the operator's own component does not fit; [`Failure::CannotStart`] when the embedded
    /// one cannot be used on this machine.
    pub async fn start(&self, max_image_bytes: Option<usize>) -> Result<Sandbox, Failure> {
        let mut config =
            SandboxConfig { component: self.preprocess_component.clone(), ..SandboxConfig::default() };
        config.queue = usize::try_from(self.preprocess_queue).unwrap_or(usize::MAX);
        if let Some(workers) = self.preprocess_workers {
            config.workers = usize::from(workers);
        }
        if let Some(bytes) = max_image_bytes {
            config.limits.max_image_bytes = bytes;
        }
        let own = config.component.is_some();
        let made = tokio::task::spawn_blocking(move || Sandbox::new(config)).await;
        let message = match made {
            Ok(Ok(sandbox)) => return Ok(sandbox),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("The sandbox could not be started: {error}."),
        };
        Err(if own { Failure::Usage(message) } else { Failure::CannotStart(message) })
    }
}

/// Reads a duration with its unit: `500ms`, `2s`, `1m 30s`.
///
/// # Errors
/// A sentence fragment that says what is expected, for clap to put behind the flag's name.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration with its unit, such as 500ms, 2s or 1m 30s".to_owned();
    let duration: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(duration).map_err(|_| expected())
}
