//! A backend at work: batches written, run and split, and a new backend when it breaks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::admission::Signature;
use super::batch::{BatchBuffer, DryRun, split};
use super::request::{OutputMeter, PreparedRequest};
use super::{InstanceParts, observer::RequestReport};
use crate::backend::{Backend, BackendError, BackendFactory, FailureKind};
use crate::tensor::Tensor;
use in_place::TooLarge;

/// A backend, the memory of its batches, and what makes a backend like it.
pub(crate) struct Engine {
    signature: Arc<Signature>,
    /// `None` while there is none: on an accelerator the old one goes before a new one is made.
    backend: Option<Box<dyn Backend>>,
    factory: Arc<dyn BackendFactory>,
    buffer: BatchBuffer,
    /// Whether zeros tell a broken backend from a sound one: some models take other input only.
    zeros_tell: bool,
    /// Why the last try to make a new backend failed.
    not_rebuilt: String,
    /// What outputs are counted in.
    outputs: Option<Arc<dyn OutputMeter>>,
    /// Whether its device was lost: a new backend must show that it runs.
    lost: bool,
}

/// What a run gave, and how long each part of it took.
pub(crate) struct Completed {
    /// Outputs by request.
    pub(crate) answers: Vec<Vec<Tensor>>,
    pub(crate) compute_input: Duration,
    pub(crate) compute_infer: Duration,
    pub(crate) compute_output: Duration,
}

impl Completed {
    /// What is reported of a request of so many rows, which arrived and was taken then.
    pub(crate) fn report(&self, rows: usize, enqueued_at: Instant, taken_at: Instant) -> RequestReport {
        RequestReport {
            rows,
            total: enqueued_at.elapsed(),
            queue: taken_at.saturating_duration_since(enqueued_at),
            compute_input: self.compute_input,
            compute_infer: self.compute_infer,
            compute_output: self.compute_output,
        }
    }
}

/// Why a run gave nothing.
pub(crate) enum Failure {
    /// The model failed; the backend can be used again.
    Backend(BackendError),
    /// Something panicked; what the backend is worth is unknown.
    Panic(String),
}

/// What became of a backend that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is as good as before: it was the requests.
    Sound,
    /// It was broken and is a new one now.
    Rebuilt,
    /// It is broken; a new one is made on an accelerator, which takes as long as a start.
    Broken,
}

impl Engine {
    pub(crate) fn new(
        signature: &Arc<Signature>,
        InstanceParts { backend, factory }: InstanceParts,
        outputs: Option<Arc<dyn OutputMeter>>,
    ) -> Self {
        let buffer = BatchBuffer::new(Arc::clone(signature));
        Self {
            signature: Arc::clone(signature),
            backend: Some(backend),
            factory,
            buffer,
            zeros_tell: true,
            not_rebuilt: String::new(),
            outputs,
            lost: false,
        }
    }

    /// Runs requests as one batch and gives each its outputs.
    pub(crate) fn run(&mut self, requests: &[&PreparedRequest]) -> Result<Completed, Failure> {
        let run = || {
            let started = Instant::now();
            let backend = self.backend.as_deref_mut().ok_or_else(none_there)?;
            let batch = self.buffer.write(requests);
            let written = Instant::now();
            let mut outputs = backend.infer(&batch)?;
            let inferred = Instant::now();
            if let Some(meter) = &self.outputs {
                outputs.iter_mut().for_each(|output| count(output, meter));
            }
            let answers = split(&self.signature, &outputs, requests)?;
            Ok(Completed {
                answers,
                compute_input: written - started,
                compute_infer: inferred - written,
                compute_output: inferred.elapsed(),
            })
        };
        // After a panic the backend is replaced, and the buffer is written anew for each batch.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => outcome.map_err(Failure::Backend),
            Err(panic) => Err(Failure::Panic(panic_message(&*panic))),
        }
    }

    /// Tells whether it is the backend that failed, by a row that it has run before; if so, makes a new one, unless that
    /// takes long.
    ///
    /// # Errors
    /// When a new one cannot be made, in words for the log.
    pub(crate) fn check(&mut self, error: &BackendError) -> Result<Condition, String> {
        self.lost = error.kind() == FailureKind::DeviceLost;
        if !self.lost && (!self.zeros_tell || self.runs_zeros()) {
            return Ok(Condition::Sound);
        }
        if self.takes_long() {
            self.not_rebuilt = error.to_string();
            return Ok(Condition::Broken);
        }
        self.rebuild_beside()?;
        // Where a new backend fails as well, zeros are no input for this model.
        self.zeros_tell = self.runs_zeros();
        Ok(Condition::Rebuilt)
    }

    /// Makes a new backend. On an accelerator every batch size up to `most` rows is run on it first, while `goes_on` says
    /// so, and what is given is the first that the device has no memory for.
    ///
    /// # Errors
    /// When that fails, in words for the log.
    pub(crate) fn rebuild(
        &mut self,
        most: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<TooLarge>, String> {
        if self.takes_long() {
            self.rebuild_in_place(most, goes_on)
        } else {
            self.rebuild_beside().map(|()| None)
        }
    }

    /// Whether making a new backend takes longer than a request can wait.
    pub(crate) fn takes_long(&self) -> bool {
        self.factory.is_on_accelerator()
    }

    /// Makes a new backend while the old one is there, which is kept when that fails.
    fn rebuild_beside(&mut self) -> Result<(), String> {
        let made = self.make().and_then(|backend| {
            self.backend = Some(backend);
            self.still_lost().map_or(Ok(()), Err)
        });
        self.noted(made)
    }

    /// Why the last try to make a new backend failed.
    pub(crate) fn not_rebuilt(&self) -> &str {
        &self.not_rebuilt
    }

    /// Whether its device is there, as far as can be told without a run.
    pub(crate) fn is_there(&mut self) -> bool {
        let Err(error) = self.backend.as_deref().ok_or_else(none_there).and_then(Backend::check) else {
            return true;
        };
        self.broke(&error);
        false
    }

    /// Notes why it can be used no more until a new backend is made; one that was lost must then show that it runs.
    pub(crate) fn broke(&mut self, error: &BackendError) {
        self.lost = error.kind() == FailureKind::DeviceLost;
        self.not_rebuilt = error.to_string();
    }

    /// A new backend.
    fn make(&self) -> Result<Box<dyn Backend>, BackendError> {
        let made = catch_unwind(AssertUnwindSafe(|| self.factory.create()));
        made.unwrap_or_else(|panic| Err(BackendError::new(panic_message(&*panic))))
    }

    /// Keeps the reason why it failed.
    fn noted<T>(&mut self, outcome: Result<T, BackendError>) -> Result<T, String> {
        outcome.map_err(|error| {
            self.not_rebuilt = error.to_string();
            self.not_rebuilt.clone()
        })
    }

    /// After its device was lost: why it is not back.
    fn still_lost(&mut self) -> Option<BackendError> {
        if self.lost {
            let error = self.run_zeros(1).err().filter(|error| error.kind() == FailureKind::DeviceLost);
            self.lost = error.is_some();
            return error;
        }
        None
    }

    fn runs_zeros(&mut self) -> bool {
        self.run_zeros(1).is_ok()
    }

    fn run_zeros(&mut self, rows: usize) -> Result<(), BackendError> {
        let backend = self.backend.as_deref_mut().ok_or_else(none_there)?;
        let mut zeros = DryRun::of_zeros(&self.signature, rows)?;
        let run = catch_unwind(AssertUnwindSafe(|| zeros.run(backend)));
        run.unwrap_or_else(|panic| Err(BackendError::new(panic_message(&*panic)))).map(drop)
    }
}

/// What is said where there is no backend.
fn none_there() -> BackendError {
    BackendError::of_kind(FailureKind::DeviceLost, "it is being made anew")
}

/// Counts an output until nobody holds a row of it any more.
fn count(output: &mut Tensor, meter: &Arc<dyn OutputMeter>) {
    let data = std::mem::take(&mut output.data);
    meter.take(data.len());
    output.data = Bytes::from_owner(CountedOutput { data, meter: Arc::clone(meter) });
}

/// An output of a batch, and what it is counted in.
struct CountedOutput {
    data: Bytes,
    meter: Arc<dyn OutputMeter>,
}

impl AsRef<[u8]> for CountedOutput {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for CountedOutput {
    fn drop(&mut self) {
        let bytes = self.data.len();
        self.data = Bytes::new();
        self.meter.give_back(bytes);
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

mod in_place;
#[cfg(test)]
mod tests;
