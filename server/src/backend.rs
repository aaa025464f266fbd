//! What runs a batch: the [`Backend`] trait and the choice of device.
//!
//! **Architecture invariant:** only [`onnx`] imports `ort`.

use std::fmt;
use std::str::FromStr;

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
