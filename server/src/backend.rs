//! What runs a batch: the [`Backend`] trait and the choice of device.
//!
//! **Architecture invariant:** only [`onnx`] imports `ort`.

pub mod onnx;
pub mod simulated;

use std::fmt;
use std::str::FromStr;

use crate::tensor::{DataType, Shape, Tensor};

pub use onnx::RawSession;

/// Where models are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// CUDA where it works, else the CPU; the reason is logged.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU; a model that cannot run there is not loaded.
    Cuda,
}

impl Device {
    /// The word for it in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: use one of auto, cpu, cuda.")]
pub struct ParseDeviceError(String);

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::Cpu, Self::Cuda]
            .into_iter()
            .find(|device| device.as_str() == value)
            .ok_or_else(|| ParseDeviceError(value.to_owned()))
    }
}

/// What a model really runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionProvider {
    /// ONNX Runtime's own kernels for the processor.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
}

impl ExecutionProvider {
    /// A short name for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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
}

/// Makes backends: one per instance, and a new one for an instance that was broken.
pub trait BackendFactory: Send + Sync {
    /// Makes a backend. Blocking.
    ///
    /// # Errors
    /// When the model cannot be opened.
    fn create(&self) -> Result<Box<dyn Backend>, BackendError>;
}

/// Why a backend failed, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(String);

impl BackendError {
    /// An error with what the runtime said, without a full stop at its end.
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}
