//! Writing a batch and splitting its outputs by themselves: what benchmarks measure.

use std::sync::Arc;

use super::admission::Signature;
use super::batch::{BatchBuffer, split};
use super::request::{InferenceRequest, PreparedRequest};
use crate::backend::BackendError;
use crate::error::ServingError;
use crate::tensor::Tensor;

/// The requests of one batch, and the memory that they are written to.
#[derive(Debug)]
pub struct Assembly {
    signature: Arc<Signature>,
    buffer: BatchBuffer,
    requests: Vec<PreparedRequest>,
}

impl Assembly {
    /// A batch of these requests, which must have the same row shapes.
    ///
    /// # Errors
    /// When one does not fit the model.
    pub fn new(signature: &Arc<Signature>, requests: Vec<InferenceRequest>) -> Result<Self, ServingError> {
        let prepare = |request| signature.prepare(request);
        Ok(Self {
            requests: requests.into_iter().map(prepare).collect::<Result<_, _>>()?,
            buffer: BatchBuffer::new(Arc::clone(signature)),
            signature: Arc::clone(signature),
        })
    }

    /// Writes the batch, and gives its bytes.
    pub fn write(&mut self) -> usize {
        let requests: Vec<&PreparedRequest> = self.requests.iter().collect();
        self.buffer.write(&requests).inputs.iter().map(|input| input.data.len()).sum()
    }

    /// Gives each request its rows of the outputs.
    ///
    /// # Errors
    /// When the outputs do not have the rows of the batch.
    pub fn split(&self, outputs: &[Tensor]) -> Result<Vec<Vec<Tensor>>, BackendError> {
        let requests: Vec<&PreparedRequest> = self.requests.iter().collect();
        split(&self.signature, outputs, &requests)
    }
}
