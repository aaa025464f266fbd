//! What an operator can set, and the check before any port is bound.

mod control;
mod units;

use crate::backend::Device;
use crate::repository::RepositoryConfig;
use clap::ValueEnum;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use control::ModelControl;
pub use service_kit::ByteSize;
pub use units::{ParseUnitError, TimeLimit};

/// The settings of model-serving. Every flag has an environment variable; the flag wins.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "model-serving")]
pub struct Config {
    /// Address (IP:port) of the gRPC services: model_serving.ModelServing, inference.GRPCInferenceService, health
    /// and reflection. Port 0 takes a free one.
    #[arg(long, env = "GRPC_ADDR", value_name = "ADDR", default_value_t = any_interface(50051))]
    pub grpc_addr: SocketAddr,

    /// Address (IP:port) of the REST face: /health, /ready and the Open Inference Protocol under /v2. Port 0 takes
    /// a free one.
    #[arg(long, env = "HTTP_ADDR", value_name = "ADDR", default_value_t = any_interface(8000))]
    pub http_addr: SocketAddr,

    /// Address (IP:port) where Prometheus scrapes GET /metrics. Port 0 takes a free one.
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDR", default_value_t = any_interface(8002))]
    pub metrics_addr: SocketAddr,

    /// A model repository (NAME/config.pbtxt, NAME/VERSION/model.onnx), or one .onnx file.
    #[arg(long, env = "MODEL_PATH", value_name = "PATH", default_value = "models")]
    pub model_path: PathBuf,

    /// Name of the model that answers requests which name none. Default: the repository's only model; with several
    /// and no default, such requests are refused.
    #[arg(long, env = "DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<String>,

    /// Which models are served, and who decides it.
    #[command(flatten)]
    pub control: ModelControl,

    /// Where models run: auto takes a CUDA GPU when one can be used, else the CPU; cuda refuses to start without.
    #[arg(long, env = "DEVICE", value_name = "auto|cpu|cuda[:N]", default_value_t = Device::Auto)]
    pub device: Device,

    /// ONNX Runtime's shared library. Default: .convoy/onnxruntime/libonnxruntime.so under the working directory or
    /// above the executable, else what the system's loader finds as libonnxruntime.so.
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "PATH")]
    pub onnxruntime_lib: Option<PathBuf>,

    /// Largest batch, in rows, of a model whose configuration sets no max_batch_size and whose file allows batches.
    #[arg(long, env = "DEFAULT_MAX_BATCH_SIZE", value_name = "ROWS",
          default_value_t = RepositoryConfig::DEFAULT_MAX_BATCH_SIZE as u32,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub default_max_batch_size: u32,

    /// Latency objective: time within which a request is answered, counted from its entry into the inference queue.
    /// What cannot make it is refused at once. With a unit (100ms, 1s), or none: only callers' deadlines count. A
    /// model's parameter slo_ms overrides it.
    #[arg(long, env = "LATENCY_SLO", value_name = "DURATION|none", default_value_t = TimeLimit::SLO)]
    pub slo: TimeLimit,

    /// Memory, in bytes or with a unit (512MiB, 2GiB), that requests may hold together: bodies while they arrive and
    /// wait, decoded tensors, images being decoded. Past it new calls are refused with RESOURCE_EXHAUSTED or 429.
    #[arg(long, env = "MAX_INFLIGHT_BYTES", value_name = "BYTES", default_value_t = ByteSize::gib(1))]
    pub max_inflight_bytes: ByteSize,

    /// Time that each further 16 KiB of a request's body, or what is left of it, may take to come. A body that is slower
    /// is not waited for, and its memory is given back: 408 or DEADLINE_EXCEEDED. What we leave unread takes no time,
    /// nor does a stream between two messages. With a unit (10s), or none: bodies are waited for without end.
    #[arg(long, env = "BODY_TIMEOUT", value_name = "DURATION|none", default_value_t = TimeLimit::BODY)]
    pub body_timeout: TimeLimit,

    /// Time that a caller may take to read each further MiB of an answer, or what is left of it. An answer that is not read
    /// is given up, and its memory given back: over HTTP/2 its stream is reset where that is enough, else its connection
    /// is. With a unit (60s), or none: answers are held until they are read or their connection ends.
    #[arg(long, env = "ANSWER_TIMEOUT", value_name = "DURATION|none", default_value_t = TimeLimit::ANSWER)]
    pub answer_timeout: TimeLimit,

    /// Time that measuring one model's latencies may take while it loads. With a unit: 500ms, 3s.
    #[arg(long, env = "PROFILE_TIME", value_name = "DURATION", default_value = "3s", value_parser = units::duration)]
    pub profile_time: Duration,

    /// Folder where measured latencies are kept, so that the next start is ready at once; none: they are not kept.
    /// Default: convoy in $XDG_CACHE_HOME, or in $HOME/.cache.
    #[arg(long, env = "PROFILE_CACHE", value_name = "PATH|none")]
    pub profile_cache: Option<PathBuf>,

    /// Most requests that wait for one model; the next one is refused at once with RESOURCE_EXHAUSTED. The time they
    /// need bounds the queue before that.
    #[arg(long, env = "QUEUE_SIZE", value_name = "REQUESTS",
          default_value_t = RepositoryConfig::DEFAULT_QUEUE_SIZE as u32,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_size: u32,

    /// Age at which a gRPC connection is told to end (GOAWAY) and its client to connect again, so that clients which
    /// hold their connections find new replicas; calls that are open are answered. With a unit (10m). Default: never.
    #[arg(long, env = "MAX_CONNECTION_AGE", value_name = "DURATION", value_parser = units::duration)]
    pub max_connection_age: Option<Duration>,

    /// How user ids stand in the audit log: plain as they were sent, or hashed (the first 128 bits of their
    /// HMAC-SHA-256 under --audit-key), so that who can read the log cannot tell or guess the ids.
    #[arg(long, env = "AUDIT_USER_ID", value_enum, default_value_t = AuditUserId::Plain)]
    pub audit_user_id: AuditUserId,

    /// Secret key of hashed user ids, any text of at least 16 bytes. Default: a random one for each start, so that
    /// the hashes of one user agree only until the next start.
    #[arg(long, env = "AUDIT_KEY", value_name = "SECRET", hide_env_values = true)]
    pub audit_key: Option<AuditKey>,
}

/// How user ids stand in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditUserId {
    /// As they were sent.
    Plain,
    /// As a keyed hash.
    Hashed,
}

/// A secret; it never shows in logs or debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditKey(String);

impl AuditKey {
    /// The least number of bytes: shorter ones can be guessed.
    pub const MIN_BYTES: usize = 16;

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<String> for AuditKey {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

/// A setting that cannot work; the text says which and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nothing is at `--model-path`.
    #[error(
        "There is nothing at the model path {0}: set --model-path (MODEL_PATH) to a model repository or to an .onnx file."
    )]
    NoModelPath(PathBuf),
    /// `--model-path` is a file of another kind.
    #[error(
        "The model path {0} is a file but no .onnx file: set --model-path (MODEL_PATH) to a model repository or to an .onnx file."
    )]
    NotAModel(PathBuf),
    /// Nothing is at `--onnxruntime-lib`.
    #[error(
        "There is no file {0}: set --onnxruntime-lib (ORT_DYLIB_PATH) to ONNX Runtime's shared library, or leave it out."
    )]
    NoOnnxRuntime(PathBuf),
    /// `--default-model` is empty.
    #[error(
        "The default model's name is empty: set --default-model (DEFAULT_MODEL) to a model's name, or leave it out."
    )]
    EmptyDefaultModel,
    /// `--load-model` does not fit the other settings.
    #[error("--load-model (LOAD_MODEL) cannot be used so: {0}.")]
    LoadModel(&'static str),
    /// `--audit-key` is too short.
    #[error(
        "The audit key is shorter than 16 bytes: set --audit-key (AUDIT_KEY) to a longer secret, or leave it out."
    )]
    ShortAuditKey,
    /// Two faces on one port of one interface, or of one and all.
    #[error("Two of --grpc-addr, --http-addr and --metrics-addr listen on {0}: give each a port of its own.")]
    SameAddress(SocketAddr),
    /// A number or duration outside its range.
    #[error("{flag} ({variable}) is {value}, but must be {expected}.")]
    OutOfRange {
        /// The flag, with its dashes.
        flag: &'static str,
        /// Its environment variable.
        variable: &'static str,
        /// What it was set to.
        value: String,
        /// The range it must be in.
        expected: &'static str,
    },
}

/// A longer objective, or time to measure, is more likely a slip of the unit than a wish.
const MAX_SLO: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PROFILE_TIME: Duration = Duration::from_secs(60 * 60);
/// In a shorter time not even a healthy network always brings the next packet.
const MIN_CLIENT_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_CLIENT_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// A shorter one would have clients do little else than connect.
const MIN_CONNECTION_AGE: Duration = Duration::from_secs(1);
/// With less, a photo of a telephone would not fit.
const MIN_INFLIGHT_BYTES: usize = 16 << 20;

impl Config {
    /// Checks what can be known before a port is bound or a model is read.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.model_path.exists() {
            return Err(ConfigError::NoModelPath(self.model_path.clone()));
        }
        if self.model_path.is_file() && self.model_path.extension().is_none_or(|e| e != "onnx") {
            return Err(ConfigError::NotAModel(self.model_path.clone()));
        }
        if let Some(library) = &self.onnxruntime_lib
            && !library.is_file()
        {
            return Err(ConfigError::NoOnnxRuntime(library.clone()));
        }
        if self.default_model.as_deref() == Some("") {
            return Err(ConfigError::EmptyDefaultModel);
        }
        if self.audit_key.as_ref().is_some_and(|key| key.as_bytes().len() < AuditKey::MIN_BYTES) {
            return Err(ConfigError::ShortAuditKey);
        }
        self.control.validate()?;
        self.validate_limits()?;
        let addresses = [self.grpc_addr, self.http_addr, self.metrics_addr];
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].iter().any(|other| collide(*other, *address)) {
                return Err(ConfigError::SameAddress(*address));
            }
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        let refuse = |flag, variable, value: String, expected| {
            Err(ConfigError::OutOfRange { flag, variable, value, expected })
        };
        if self.slo.limit().is_some_and(|slo| slo.is_zero() || slo > MAX_SLO) {
            let expected = "more than 0s and at most 24h, or none";
            return refuse("--slo", "LATENCY_SLO", self.slo.to_string(), expected);
        }
        if self.profile_time.is_zero() || self.profile_time > MAX_PROFILE_TIME {
            let expected = "more than 0s and at most 1h";
            return refuse("--profile-time", "PROFILE_TIME", format!("{:?}", self.profile_time), expected);
        }
        for (flag, variable, time) in [
            ("--body-timeout", "BODY_TIMEOUT", self.body_timeout),
            ("--answer-timeout", "ANSWER_TIMEOUT", self.answer_timeout),
        ] {
            if time.limit().is_some_and(|limit| !(MIN_CLIENT_TIMEOUT..=MAX_CLIENT_TIMEOUT).contains(&limit)) {
                let expected = "at least 100ms and at most 24h, or none";
                return refuse(flag, variable, time.to_string(), expected);
            }
        }
        if let Some(age) = self.max_connection_age
            && age < MIN_CONNECTION_AGE
        {
            return refuse("--max-connection-age", "MAX_CONNECTION_AGE", format!("{age:?}"), "at least 1s");
        }
        if self.max_inflight_bytes.get() < MIN_INFLIGHT_BYTES {
            let value = format!("{} bytes", self.max_inflight_bytes.get());
            return refuse("--max-inflight-bytes", "MAX_INFLIGHT_BYTES", value, "at least 16MiB");
        }
        Ok(())
    }

    /// Where measured latencies are kept, if they are.
    fn profile_cache_folder(&self) -> Option<PathBuf> {
        match &self.profile_cache {
            Some(folder) => Some(folder.clone()).filter(|folder| folder.as_os_str() != "none"),
            None => user_cache().map(|cache| cache.join("convoy")),
        }
    }

    /// What the repository is told.
    pub(crate) fn repository(&self) -> RepositoryConfig {
        RepositoryConfig {
            device: self.device,
            default_model: self.default_model.clone(),
            onnxruntime_lib: self.onnxruntime_lib.clone(),
            queue_size: self.queue_size as usize,
            default_max_batch_size: self.default_max_batch_size as usize,
            profile_time: self.profile_time,
            profile_cache: self.profile_cache_folder(),
            slo: self.slo.limit(),
            control_mode: self.control.model_control_mode,
            load_models: self.control.load_models.clone(),
            ..RepositoryConfig::new(&self.model_path)
        }
    }
}

/// The user's folder for what can be made again, as the XDG base directory specification has it.
fn user_cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))
}

/// Whether only one of two addresses can be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |address: SocketAddr, other: SocketAddr| {
        address.ip().is_unspecified() && address.is_ipv4() == other.is_ipv4()
    };
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a, b) || all(b, a))
}

fn any_interface(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests;
