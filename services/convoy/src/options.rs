//! Flags that several subcommands share.

use crate::exit::Failure;
use sandbox::{Sandbox, SandboxConfig};
use service_kit::ByteSize;
use service_kit::telemetry::{self, LogFormat, LogLevel};
use std::ops::RangeInclusive;
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

/// What one image may be given in the sandbox.
const MEMORY_BYTES: RangeInclusive<usize> = 16 << 20..=4 << 30;
/// A longer time is more likely a slip of the unit than a wish.
const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How images are preprocessed.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct SandboxArgs {
    /// A WASM component to use for preprocessing instead of the one in this binary.
    #[arg(long, env = "PREPROCESS_COMPONENT", value_name = "PATH")]
    pub preprocess_component: Option<PathBuf>,

    /// Threads that preprocess images: how many images at once. As many more, of a lower priority, work on large images, and
    /// as many again on those that may take long, which take turns. A model with a component of its own has as many of each
    /// for itself. Default: the processor's cores.
    #[arg(long, env = "SANDBOX_WORKERS", value_name = "THREADS",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub sandbox_workers: Option<u16>,

    /// Images that may wait for threads of each kind; the next one is refused at once with 429 or RESOURCE_EXHAUSTED.
    #[arg(long, env = "SANDBOX_QUEUE", value_name = "IMAGES", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sandbox_queue: u32,

    /// Memory that one image may take in the sandbox, at most: a number of bytes, or one with a unit such as 512MiB. What
    /// it may really take depends on the width and height that its header declares.
    #[arg(long, env = "SANDBOX_MEMORY", value_name = "BYTES", default_value_t = ByteSize::from(512 << 20))]
    pub sandbox_memory: ByteSize,

    /// Time that one image may run in the sandbox, and wait for a thread of it. With a unit: 500ms, 5s.
    #[arg(long, env = "SANDBOX_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub sandbox_timeout: Duration,

    /// Width times height that an image's header may declare.
    #[arg(long, env = "MAX_PIXELS", value_name = "PIXELS", default_value_t = 50_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub max_pixels: u64,
}

impl SandboxArgs {
    /// Checks what can be known before a port is bound.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the component is not there, or a limit cannot be.
    pub fn validate(&self) -> Result<(), Failure> {
        if !MEMORY_BYTES.contains(&self.sandbox_memory.get()) {
            return Err(Failure::Usage(format!(
                "--sandbox-memory (SANDBOX_MEMORY) is {}, but must be between 16MiB, without which no image's header is \
                 read, and 4GiB, which is all that a component can address.",
                self.sandbox_memory
            )));
        }
        if self.sandbox_timeout.is_zero() || self.sandbox_timeout > MAX_TIMEOUT {
            return Err(Failure::Usage(format!(
                "--sandbox-timeout (SANDBOX_TIMEOUT) is {:?}, but must be more than 0s and at most 1h.",
                self.sandbox_timeout
            )));
        }
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
    /// command has a setting for it.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the operator's own component does not fit; [`Failure::CannotStart`] when the embedded
    /// one cannot be used on this machine.
    pub async fn start(&self, max_image_bytes: Option<usize>) -> Result<Sandbox, Failure> {
        let mut config =
            SandboxConfig { component: self.preprocess_component.clone(), ..SandboxConfig::default() };
        config.queue = usize::try_from(self.sandbox_queue).unwrap_or(usize::MAX);
        config.limits.memory_bytes = self.sandbox_memory.get();
        config.limits.timeout = self.sandbox_timeout;
        config.limits.max_pixels = self.max_pixels;
        if let Some(workers) = self.sandbox_workers {
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
