//! Backends on a GPU that is watched: while it is lost they run nothing, and none is made.

use super::{Backend, BackendError, BackendFactory, Batch, FailureKind, ProviderNodes};
use crate::gpu::GpuHealth;
use crate::tensor::Tensor;

/// A GPU, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// Knows whether it is lost.
    pub(crate) health: GpuHealth,
    /// Its identity; `None`: it is not known which of the driver's GPUs it is, and only its own errors tell.
    pub(crate) uuid: Option<String>,
}

impl Watched {
    fn check(&self) -> Result<(), BackendError> {
        let Some(uuid) = &self.uuid else { return Ok(()) };
        self.health.check(uuid).map_err(|reason| BackendError::of_kind(FailureKind::DeviceLost, reason))
    }
}

/// Makes backends on a GPU that is watched.
pub(crate) struct WatchedFactory<F> {
    pub(crate) inner: F,
    pub(crate) gpu: Watched,
}

impl<F: BackendFactory> BackendFactory for WatchedFactory<F> {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        self.gpu.check()?;
        Ok(Box::new(WatchedBackend { inner: self.inner.create()?, gpu: self.gpu.clone() }))
    }

    fn is_on_accelerator(&self) -> bool {
        self.inner.is_on_accelerator()
    }
}

struct WatchedBackend {
    inner: Box<dyn Backend>,
    gpu: Watched,
}

impl Backend for WatchedBackend {
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        // A call into the driver of a GPU that is lost may never come back.
        self.gpu.check()?;
        self.inner.infer(batch)
    }

    fn nodes(&self) -> &[ProviderNodes] {
        self.inner.nodes()
    }

    fn check(&self) -> Result<(), BackendError> {
        self.gpu.check()
    }
}
