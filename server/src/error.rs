//! What goes wrong in model-serving: [`ServingError`] while a request is served, [`LoadError`] while models load.

use std::path::PathBuf;
use std::time::Duration;

use sandbox::SandboxError;
use service_kit::ErrorCode;

/// Why a request was not answered with a result. Every message is a whole sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The caller's: the request does not fit the model. The text is the whole sentence.
    #[error("{0}")]
    InvalidInput(String),
    /// The caller's: there is no such model.
    #[error("There is no model `{name}` here.")]
    ModelNotFound {
        /// The name that was asked for.
        name: String,
    },
    /// The caller's: the model was unloaded.
    #[error("Model `{name}` is not loaded here.")]
    ModelNotLoaded {
        /// The name that was asked for.
        name: String,
    },
    /// The caller's: several models are loaded, and none of them is the default.
    #[error("Name a model: this server has several and no default model.")]
    NoDefaultModel,
    /// The caller's: the model has no such version.
    #[error("Model `{name}` has no version `{version}` here.")]
    VersionNotFound {
        /// The model.
        name: String,
        /// The version that was asked for.
        version: String,
    },
    /// The caller's: a request over a limit. The text is the whole sentence.
    #[error("{0}")]
    TooLarge(String),
    /// Nobody's: more work than can be done in time. Nothing was executed.
    #[error("{detail}: try again in {} ms.", retry_after.as_millis())]
    Overloaded {
        /// What is full, without a full stop at its end.
        detail: String,
        /// When another try is likely to be accepted.
        retry_after: Duration,
    },
    /// The caller's deadline passed, or cannot be met. The text is the whole sentence.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The caller's: the body of its request stopped coming, or came too slowly. The text is the whole sentence.
    #[error("{0}")]
    BodyTooSlow(String),
    /// The server is loading or stopping. The text is the whole sentence.
    #[error("{0}")]
    Unavailable(String),
    /// The image of the request was not preprocessed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// One of the encoded images that are a request's input was not preprocessed, through its sender's fault.
    #[error("Image {index} of input `{input}`: {error}")]
    Image {
        /// The input.
        input: String,
        /// Which of its images, from 0.
        index: usize,
        /// What is wrong with it.
        error: SandboxError,
    },
    /// The model failed on this request, which was run alone.
    #[error("Model `{model}` failed on this request; the server's log says why.")]
    ExecutionFailed {
        /// The model.
        model: String,
    },
    /// A fault of ours. The text is the whole sentence and tells no secrets.
    #[error("{0}")]
    Internal(String),
}

/// See [`ServingError::severity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Warning,
    Debug,
}

impl ServingError {
    /// The code of the answer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidInput(_) | Self::NoDefaultModel => ErrorCode::InvalidInput,
            Self::ModelNotFound { .. } | Self::ModelNotLoaded { .. } | Self::VersionNotFound { .. } => {
                ErrorCode::NotFound
            }
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::DeadlineExceeded(_) | Self::BodyTooSlow(_) => ErrorCode::DeadlineExceeded,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Sandbox(error) | Self::Image { error, .. } => sandbox_code(error),
            Self::ExecutionFailed { .. } | Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// How loudly it is logged. What callers and overload cause may come by the thousand a second, and the metrics count it.
    pub(crate) fn severity(&self) -> Severity {
        match self.code() {
            // It is answered as the sender's fault, but an operator wants to know that the decoder failed, and on what.
            _ if self.trapped_image().is_some() => Severity::Warning,
            ErrorCode::Internal => Severity::Error,
            ErrorCode::DeadlineExceeded
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::InvalidInput
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::TooLarge => Severity::Debug,
        }
    }

    /// What the caller reads, with the setting where a limit has one. What a broken component or a trap said in detail is for the operator's log only.
    pub fn public_message(&self) -> String {
        match self {
            Self::Sandbox(SandboxError::Component { .. }) => {
                "The image could not be preprocessed because of a fault of the server; its log says why."
                    .to_owned()
            }
            Self::Sandbox(SandboxError::Trapped { .. }) => TRAPPED.to_owned(),
            Self::Sandbox(SandboxError::TooLarge { bytes, limit }) => too_large(*bytes, *limit),
            Self::Image { input, index, error: SandboxError::TooLarge { bytes, limit } } => {
                format!("Image {index} of input `{input}`: {}", too_large(*bytes, *limit))
            }
            Self::Image { input, index, error: SandboxError::Trapped { .. } } => {
                format!("Image {index} of input `{input}`: {TRAPPED}")
            }
            other => other.to_string(),
        }
    }

    /// SHA-256 of the image that made its decoder fail, if that is what happened: for the log, which holds no images.
    pub fn trapped_image(&self) -> Option<&str> {
        match self {
            Self::Sandbox(SandboxError::Trapped { image_sha256, .. })
            | Self::Image { error: SandboxError::Trapped { image_sha256, .. }, .. } => Some(image_sha256),
            _ => None,
        }
    }

    /// What became of the image, if that is why: the word that metrics use.
    pub fn verdict(&self) -> Option<&'static str> {
        match self {
            Self::Sandbox(error) | Self::Image { error, .. } => Some(error.verdict().as_str()),
            _ => None,
        }
    }

    /// When another try is likely to succeed, for [`ErrorCode::Overloaded`].
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } | Self::Sandbox(SandboxError::Busy { retry_after }) => {
                Some(*retry_after)
            }
            _ => None,
        }
    }
}

/// What the sender of an image that made the decoder fail is told.
const TRAPPED: &str = "The image could not be decoded: it made the decoder fail.";

/// What the sender of an image of too many `bytes` is told.
fn too_large(bytes: usize, limit: usize) -> String {
    format!(
        "The image has {bytes} bytes, more than the limit of {limit} bytes (--max-image-bytes): send a smaller one."
    )
}

/// An image that needs more than its limits is its sender's fault; only a broken component is ours.
fn sandbox_code(error: &SandboxError) -> ErrorCode {
    match error {
        SandboxError::TooManyPixels { .. } | SandboxError::TooLarge { .. } => ErrorCode::TooLarge,
        SandboxError::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        SandboxError::Busy { .. } => ErrorCode::Overloaded,
        SandboxError::Stopped => ErrorCode::Unavailable,
        SandboxError::Component { .. } => ErrorCode::Internal,
        SandboxError::Empty
        | SandboxError::NotAnImage
        | SandboxError::UnsupportedFormat { .. }
        | SandboxError::Truncated { .. }
        | SandboxError::Corrupt { .. }
        | SandboxError::InvalidOptions { .. }
        | SandboxError::OutOfMemory { .. }
        | SandboxError::OutOfTime { .. }
        | SandboxError::Trapped { .. } => ErrorCode::InvalidInput,
        // The enum is open to additions; what is not known here is ours to look into.
        _ => ErrorCode::Internal,
    }
}

/// Why a model, or the library that runs it, could not be loaded. Every message is a whole sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model repository cannot be read or holds nothing to serve.
    #[error("The model repository {path} cannot be used: {detail}.", path = path.display())]
    Repository {
        /// The path that was configured.
        path: PathBuf,
        /// What is wrong, without a full stop at its end.
        detail: String,
    },
    /// A `config.pbtxt` is wrong by itself.
    #[error("{path}{line}: {detail}.", path = path.display(), line = line.map(|l| format!(":{l}")).unwrap_or_default())]
    Config {
        /// The file.
        path: PathBuf,
        /// The line, where it is known.
        line: Option<usize>,
        /// What is wrong, without a full stop at its end.
        detail: String,
    },
    /// A model file cannot be loaded, or contradicts its configuration.
    #[error("The model {path} cannot be served: {detail}.", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a full stop at its end.
        detail: String,
    },
    /// ONNX Runtime's shared library cannot be loaded.
    #[error("ONNX Runtime's library {library} cannot be used: {detail}. Run scripts/setup-onnxruntime.sh, or name the library with --onnxruntime-lib.", library = library.display())]
    Runtime {
        /// The library that was tried.
        library: PathBuf,
        /// What is wrong, without a full stop at its end.
        detail: String,
    },
    /// The device that was asked for cannot run the model.
    #[error("The device `{device}` cannot be used: {detail}.")]
    Device {
        /// The device, as configured.
        device: String,
        /// Why, without a full stop at its end.
        detail: String,
    },
}

impl LoadError {
    /// Whether the device that was asked for is what is missing, and not the model or its configuration.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Device { .. })
    }
}
