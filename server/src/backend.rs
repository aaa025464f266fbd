//! What runs a batch: the [`Backend`] trait and the choice of device.
//!
//! **Architecture invariant:** only [`onnx`] imports `ort`.

pub mod acceleration;
pub mod onnx;
pub mod simulated;
pub(crate) mod watched;

use std::fmt;
use std::str::FromStr;

use crate::tensor::{DataType, Shape, Tensor};

pub use acceleration::{Acceleration, CpuNodes, GraphOptimization};
pub use onnx::RawSession;

/// Where models are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// CUDA where it works, else the CPU; the reason is logged.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this number; a model that cannot run there is not loaded.
    Cuda(u8),
}

impl Device {
    /// Number of the GPU that models without a word of their own run on.
    pub const fn gpu(self) -> u8 {
        match self {
            Self::Cuda(number) => number,
            Self::Auto | Self::Cpu => 0,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(0) => f.pad("cuda"),
            Self::Cuda(number) => f.pad(&format!("cuda:{number}")),
        }
    }
}

/// A word that names no [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no device: use one of auto, cpu, cuda, or cuda:N for the GPU with the number N, from 0 to 255."
)]
pub struct ParseDeviceError(String);

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        match value {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                // `parse` would take `+1`.
                let number = value
                    .strip_prefix("cuda:")
                    .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
                let number = number.and_then(|number| number.parse().ok());
                number.map(Self::Cuda).ok_or_else(|| ParseDeviceError(value.to_owned()))
            }
        }
    }
}

/// What a model really runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionProvider {
    /// ONNX Runtime's own kernels for the processor.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider, and its CUDA provider for what TensorRT does not take.
    TensorRt,
}

impl ExecutionProvider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::TensorRt];

    /// A short name for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// Whether it runs on a GPU.
    pub const fn is_gpu(self) -> bool {
        !matches!(self, Self::Cpu)
    }
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Nodes of a session's graph that one of ONNX Runtime's execution providers runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderNodes {
    /// ONNX Runtime's name of the provider, as `CUDAExecutionProvider`.
    pub provider: String,
    /// Nodes, as they are after all optimizations; what TensorRT takes as one piece is one.
    pub nodes: usize,
    /// Their operators, each once, by name. Known only where several providers share the graph.
    pub operators: Vec<String>,
}

impl ProviderNodes {
    /// ONNX Runtime's names of the providers that Convoy registers, and of the CPU's.
    pub const PROVIDERS: [&'static str; 3] =
        ["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"];
}

/// Tensors of one batch, borrowed from the instance that runs it.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Rows of every tensor; 1 for a model without a batch dimension.
    pub rows: usize,
    /// The inputs, in the model's order.
    pub inputs: Vec<BatchInput<'a>>,
}

/// One input of a batch.
#[derive(Clone, Debug)]
pub struct BatchInput<'a> {
    /// Name of the input.
    pub name: &'a str,
    /// Type of its elements.
    pub datatype: DataType,
    /// Dimensions, with the batch dimension where the model has one.
    pub shape: Shape,
    /// Elements as in [`Tensor::data`], aligned for their type.
    pub data: &'a [u8],
}

/// Runs batches. Each instance of a model owns one, on its own thread.
pub trait Backend: Send {
    /// Runs a batch and gives the model's outputs, all of them, in the model's order.
    ///
    /// # Errors
    /// When the model fails; the backend can still be used.
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError>;

    /// Whether it can still be used, as far as can be told without a run.
    ///
    /// # Errors
    /// Why not.
    fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Where the nodes of its graph run; empty when that is not known.
    fn nodes(&self) -> &[ProviderNodes] {
        &[]
    }
}

/// Makes backends: one per instance, and a new one for an instance that was broken.
pub trait BackendFactory: Send + Sync {
    /// Makes a backend. Blocking.
    ///
    /// # Errors
    /// When the model cannot be opened.
    fn create(&self) -> Result<Box<dyn Backend>, BackendError>;

    /// Whether its backends run on an accelerator: what memory of it one holds another may lack, and a batch size that was
    /// never run on one takes longer than a request can wait.
    fn is_on_accelerator(&self) -> bool {
        false
    }
}

/// What a backend's failure says of the batch and of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing more than its text: often it was a request.
    Other,
    /// The device had not memory enough for the batch; a smaller one may do.
    OutOfMemory,
    /// The device is gone, or its context is beyond use: nothing runs there any more.
    DeviceLost,
}

/// Why a backend failed, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BackendError {
    detail: String,
    kind: FailureKind,
}

impl BackendError {
    /// An error with what the runtime said, without a full stop at its end.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind: FailureKind::Other }
    }

    /// As [`BackendError::new`], where the runtime's words tell what kind of failure it was.
    pub fn of_kind(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind }
    }

    /// What it says of the batch and of the device.
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn devices_have_words_and_gpus_numbers() {
        for (word, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
        ] {
            assert_eq!(word.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), word);
        }
        assert_eq!("cuda:0".parse::<Device>().unwrap(), Device::Cuda(0));
        for word in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:256", "cuda:x"] {
            assert!(word.parse::<Device>().unwrap_err().to_string().contains("cuda:N"), "{word}");
        }
    }
}
