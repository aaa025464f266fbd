//! A backend without a model: what a batch gives is decided by a function. For tests and benchmarks.

use std::sync::Arc;

use super::{Backend, BackendError, BackendFactory, Batch};
use crate::tensor::Tensor;

/// Decides what a batch gives. It may block (on a channel, to hold an instance) and it may panic.
pub type Behaviour = dyn Fn(&Batch<'_>) -> Result<Vec<Tensor>, BackendError> + Send + Sync;

/// A backend whose outputs a function makes; the factory of such backends, too.
#[derive(Clone)]
pub struct SimulatedBackend {
    behaviour: Arc<Behaviour>,
}

impl SimulatedBackend {
    /// A backend that does what `behaviour` says.
    pub fn new(
        behaviour: impl Fn(&Batch<'_>) -> Result<Vec<Tensor>, BackendError> + Send + Sync + 'static,
    ) -> Self {
        Self { behaviour: Arc::new(behaviour) }
    }

    /// The model that gives back its inputs: each becomes an output of the same name.
    ///
    /// # Errors
    /// Never; the type is that of a [`Behaviour`].
    pub fn echo(batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        let echo = |input: &super::BatchInput<'_>| Tensor {
            name: input.name.to_owned(),
            datatype: input.datatype,
            shape: input.shape.clone(),
            data: input.data.to_vec().into(),
        };
        Ok(batch.inputs.iter().map(echo).collect())
    }
}

impl Backend for SimulatedBackend {
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        (self.behaviour)(batch)
    }
}

impl BackendFactory for SimulatedBackend {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(self.clone()))
    }
}
