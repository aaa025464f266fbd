//! One instance of a model: an OS thread that owns its backend, takes batches and answers them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{BatchBuffer, split};
use super::observer::{BatchReport, CloseReason, DeadWork, RequestReport};
use super::policy::{ClosedBatch, Dropped, Lane, over};
use super::request::{InferenceResponse, PreparedRequest, QueuedRequest};
use super::shared::Shared;
use crate::backend::{Backend, BackendError, BackendFactory};
use crate::error::ServingError;
use crate::tensor::Tensor;

/// Time between two tries to make a new backend for a broken instance.
const REBUILD_INTERVAL: Duration = Duration::from_secs(1);

/// A model instance: what its thread owns.
pub(crate) struct ModelInstance {
    shared: Arc<Shared>,
    factory: Arc<dyn BackendFactory>,
    backend: Box<dyn Backend>,
    buffer: BatchBuffer,
}

/// What a run gave, and how long each part of it took.
struct Completed {
    /// Outputs by request.
    answers: Vec<Vec<Tensor>>,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

/// Why a run gave nothing.
enum Failure {
    /// The model failed; the backend can be used again.
    Backend(BackendError),
    /// Something panicked; what the backend is worth is unknown.
    Panic(String),
}

impl ModelInstance {
    pub(crate) fn new(
        shared: Arc<Shared>,
        factory: Arc<dyn BackendFactory>,
        backend: Box<dyn Backend>,
    ) -> Self {
        let buffer = BatchBuffer::new(Arc::clone(&shared.signature));
        Self { shared, factory, backend, buffer }
    }

    /// Takes and runs batches until the scheduler stops and nothing is queued.
    pub(crate) fn run(mut self) {
        loop {
            // Whatever panics here must not leave a queue that nobody serves. The backend is rebuilt after it, and
            // the buffer is written anew for each batch, so nothing half-done is seen again.
            match catch_unwind(AssertUnwindSafe(|| self.serve())) {
                Ok(()) => return,
                Err(panic) => {
                    self.shared
                        .log_failure("An instance panicked outside of its model", &panic_message(&*panic));
                    if !self.rebuild() {
                        return;
                    }
                }
            }
        }
    }

    fn serve(&mut self) {
        while let Some(dispatch) = self.shared.next_dispatch() {
            for dropped in dispatch.dropped {
                self.shared.answer_dropped(dropped);
            }
            if let Some(batch) = dispatch.batch
                && !self.execute(batch)
            {
                return;
            }
        }
    }

    /// Runs a batch and answers its requests. Gives whether the instance can go on.
    fn execute(&mut self, batch: ClosedBatch<QueuedRequest>) -> bool {
        let ClosedBatch { lane, jobs, rows, closed, expected } = batch;
        let taken_at = Instant::now();
        let outcome = self.attempt(&jobs, lane, closed, expected);
        self.shared.batch_ended(lane, rows, outcome.as_ref().ok().map(|completed| completed.compute_infer));
        match outcome {
            Ok(completed) => self.answer(jobs, taken_at, completed),
            Err(Failure::Backend(error)) if jobs.len() == 1 => self.answer_failed(jobs, &error),
            Err(Failure::Backend(error)) => {
                tracing::warn!(
                    model = %self.shared.signature.model, version = %self.shared.version, requests = jobs.len(), %error,
                    "A batch failed: its requests are run one by one"
                );
                return self.retry_alone(jobs);
            }
            Err(Failure::Panic(message)) => return self.answer_panicked(jobs, &message),
        }
        true
    }

    /// Runs each request of a failed batch alone, so that a bad one fails alone.
    fn retry_alone(&mut self, jobs: Vec<QueuedRequest>) -> bool {
        let mut able = true;
        for job in jobs {
            if !able {
                self.shared.reply(job, Err(self.shared.being_rebuilt()));
                continue;
            }
            if let Some(reason) = over(&job, self.shared.now()) {
                self.shared.answer_dropped(Dropped { job, reason });
                continue;
            }
            let taken_at = Instant::now();
            let expected = self.shared.expected(job.request.rows);
            match self.attempt(std::slice::from_ref(&job), Lane::Narrow, CloseReason::Retry, expected) {
                Ok(completed) => self.answer(vec![job], taken_at, completed),
                Err(Failure::Backend(error)) => self.answer_failed(vec![job], &error),
                Err(Failure::Panic(message)) => able = self.answer_panicked(vec![job], &message),
            }
        }
        able
    }

    /// Writes, runs and splits one batch.
    fn attempt(
        &mut self,
        jobs: &[QueuedRequest],
        lane: Lane,
        closed: CloseReason,
        expected: Duration,
    ) -> Result<Completed, Failure> {
        let requests: Vec<&PreparedRequest> = jobs.iter().map(|job| &job.request).collect();
        let started = Instant::now();
        let run = || {
            let batch = self.buffer.write(&requests);
            let written = Instant::now();
            let outputs = self.backend.infer(&batch)?;
            let inferred = Instant::now();
            let answers = split(&self.shared.signature, &outputs, &requests)?;
            Ok(Completed {
                answers,
                compute_input: written - started,
                compute_infer: inferred - written,
                compute_output: inferred.elapsed(),
            })
        };
        // After a panic the backend is replaced, and the buffer is written anew for each batch.
        let outcome = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => outcome.map_err(Failure::Backend),
            Err(panic) => Err(Failure::Panic(panic_message(&*panic))),
        };
        let report = BatchReport {
            rows: requests.iter().map(|request| request.rows).sum(),
            requests: requests.len(),
            lane,
            closed,
            expected,
            compute_input: outcome.as_ref().map_or(Duration::ZERO, |completed| completed.compute_input),
            compute_output: outcome.as_ref().map_or(Duration::ZERO, |completed| completed.compute_output),
            duration: outcome
                .as_ref()
                .map_or_else(|_| started.elapsed(), |completed| completed.compute_infer),
            succeeded: outcome.is_ok(),
        };
        tracing::debug!(
            model = %self.shared.signature.model, version = %self.shared.version, rows = report.rows,
            requests = report.requests, lane = %report.lane, closed = %report.closed, succeeded = report.succeeded,
            expected_ms = report.expected.as_secs_f64() * 1e3, duration_ms = report.duration.as_secs_f64() * 1e3,
            "Batch executed"
        );
        self.shared.observer.batch_executed(self.shared.labels(), &report);
        if !report.succeeded {
            let (rows, compute) = (report.rows, report.duration);
            self.shared.observer.work_wasted(self.shared.labels(), DeadWork::Failed, rows, compute);
        }
        outcome
    }

    fn answer(&self, jobs: Vec<QueuedRequest>, taken_at: Instant, completed: Completed) {
        let Completed { answers, compute_input, compute_infer, compute_output } = completed;
        let batch_size: usize = jobs.iter().map(|job| job.request.rows).sum();
        for (job, outputs) in jobs.into_iter().zip(answers) {
            let report = RequestReport {
                rows: job.request.rows,
                total: job.enqueued_at.elapsed(),
                queue: taken_at.saturating_duration_since(job.enqueued_at),
                compute_input,
                compute_infer,
                compute_output,
            };
            let response = InferenceResponse {
                outputs,
                queue: report.queue,
                inference: compute_input + compute_infer + compute_output,
                batch_size,
            };
            let (shared, labels) = (&self.shared, self.shared.labels());
            let is_late = job.deadline.is_some_and(|deadline| deadline <= shared.now());
            let is_wanted = shared.reply(job, Ok(response));
            if is_wanted {
                shared.observer.request_succeeded(labels, &report);
            }
            if is_late || !is_wanted {
                let why = if is_late { DeadWork::Late } else { DeadWork::Abandoned };
                let compute = compute_infer.mul_f64(report.rows as f64 / batch_size as f64);
                shared.observer.work_wasted(labels, why, report.rows, compute);
            }
        }
    }

    fn answer_failed(&self, jobs: Vec<QueuedRequest>, error: &BackendError) {
        for job in jobs {
            job.span.in_scope(|| {
                tracing::error!(
                    model = %self.shared.signature.model, version = %self.shared.version,
                    request_id = job.request.id, %error, "The model failed on a request"
                );
            });
            let model = self.shared.signature.model.to_string();
            self.shared.reply(job, Err(ServingError::ExecutionFailed { model }));
        }
    }

    /// Answers a batch that panicked, and rebuilds the backend. Gives whether the instance can go on.
    fn answer_panicked(&mut self, jobs: Vec<QueuedRequest>, message: &str) -> bool {
        self.shared.log_failure("An instance panicked while it ran a batch", message);
        for job in jobs {
            let sentence = format!(
                "Model `{}` failed unexpectedly; the server's log says why.",
                self.shared.signature.model
            );
            self.shared.reply(job, Err(ServingError::Internal(sentence)));
        }
        self.rebuild()
    }

    /// Makes a new backend, however long it takes. Gives false when the scheduler stops before there is one.
    ///
    /// Requests go on being queued while it is made; only when that fails are they told not to wait.
    fn rebuild(&mut self) -> bool {
        let mut detail = match self.replace_backend() {
            Ok(()) => return true,
            Err(detail) => detail,
        };
        self.shared.instance_broken();
        loop {
            self.shared.log_failure("A broken instance could not be rebuilt; it is tried again", &detail);
            if !self.shared.pause(REBUILD_INTERVAL) {
                return false;
            }
            detail = match self.replace_backend() {
                Ok(()) => break,
                Err(detail) => detail,
            };
        }
        self.shared.instance_repaired();
        true
    }

    fn replace_backend(&mut self) -> Result<(), String> {
        match catch_unwind(AssertUnwindSafe(|| self.factory.create())) {
            Ok(Ok(backend)) => {
                self.backend = backend;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(panic_message(&*panic)),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
