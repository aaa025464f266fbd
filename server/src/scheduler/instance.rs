//! One instance of a model: an OS thread that owns its backend, takes batches and answers them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Completed, Condition, Engine, Failure, panic_message};
use super::observer::{BatchReport, CloseReason, DeadWork};
use super::policy::{ClosedBatch, Dropped, Lane, RunId, over};
use super::repair::{Backoff, NOT_REBUILT, WideEngine};
use super::request::{InferenceResponse, PreparedRequest, QueuedRequest};
use super::shared::{Shared, lock, milliseconds};
use crate::backend::{BackendError, FailureKind};
use crate::error::ServingError;

/// A model instance: what its thread owns.
pub(crate) struct ModelInstance {
    /// Its place among the instances, from 0.
    number: usize,
    shared: Arc<Shared>,
    engine: Engine,
}

impl ModelInstance {
    pub(crate) fn new(number: usize, shared: Arc<Shared>, engine: Engine) -> Self {
        Self { number, shared, engine }
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
                    if !made_anew(&self.shared, &mut self.engine) && !self.rebuild() {
                        return;
                    }
                }
            }
        }
    }

    fn serve(&mut self) {
        while let Some(dispatch) = self.shared.next_dispatch(self.number) {
            for dropped in dispatch.dropped {
                self.shared.answer_dropped(dropped);
            }
            let goes_on = match dispatch.batch {
                Some(batch) => self.execute(batch),
                None => self.engine.is_there(),
            };
            if !goes_on && !self.rebuild() {
                return;
            }
        }
    }

    /// Runs a batch and answers its requests. Gives whether the instance can go on.
    fn execute(&mut self, batch: ClosedBatch<QueuedRequest>) -> bool {
        let ClosedBatch { id, lane, jobs, rows: _, closed, expected } = batch;
        let taken_at = Instant::now();
        // Tells the policy when it is dropped, so that a panic does not leave it waiting for ever.
        let mut running = Running { shared: &self.shared, id, lane, duration: None };
        let mut wide = match (lane, &self.shared.wide) {
            (Lane::Wide, Some(wide)) => WideEngine::usable(wide, &self.shared),
            _ => None,
        };
        let on_its_lane = lane == Lane::Narrow || wide.is_some();
        let engine = wide.as_deref_mut().map_or(&mut self.engine, |wide| &mut wide.engine);
        let mut run = BatchRun { shared: &self.shared, engine, lane };
        match run.attempt(&jobs, closed, expected) {
            Ok(completed) => {
                running.duration = on_its_lane.then_some(completed.compute_infer);
                // The others can go on while the callers are answered.
                drop(wide);
                drop(running);
                answer(&self.shared, jobs, taken_at, completed);
                true
            }
            Err(failure) => match (run.recover(jobs, failure), wide) {
                (Ok(()), _) => true,
                (Err(stranded), Some(mut broken)) => {
                    broken.broke(&self.shared);
                    drop(broken);
                    let mut run = BatchRun { shared: &self.shared, engine: &mut self.engine, lane };
                    run.run_again(stranded)
                        .or_else(|stranded| answer_stranded(&self.shared, stranded))
                        .is_ok()
                }
                (Err(stranded), None) => answer_stranded(&self.shared, stranded).is_ok(),
            },
        }
    }

    /// Tries to make a new backend, ever more rarely, after it could not be made at once. Gives false when the
    /// scheduler stops before there is one.
    fn rebuild(&mut self) -> bool {
        self.shared.instance_broken(self.engine.not_rebuilt());
        let mut backoff = Backoff::new();
        loop {
            if !self.shared.pause(backoff.next()) {
                return false;
            }
            let (most, goes_on) = (self.shared.most_rows(), || !self.shared.is_stopping());
            match self.engine.rebuild(most, &goes_on) {
                Ok(too_large) => {
                    if let Some((rows, error)) = too_large {
                        self.shared.batch_did_not_fit(rows, &error);
                    }
                    break;
                }
                Err(_) if self.shared.is_stopping() => return false,
                Err(detail) => {
                    self.shared.log_failure(NOT_REBUILT, &detail);
                    self.shared.still_broken(&detail);
                }
            }
        }
        self.shared.instance_repaired();
        true
    }
}

/// A batch that the policy counts as running until this is dropped.
struct Running<'a> {
    shared: &'a Shared,
    id: RunId,
    lane: Lane,
    /// What it took in the model, if it ran where the policy put it.
    duration: Option<Duration>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.batch_ended(self.id, self.lane, self.duration);
    }
}

/// Requests being run on an engine.
struct BatchRun<'a> {
    shared: &'a Shared,
    engine: &'a mut Engine,
    lane: Lane,
}

impl BatchRun<'_> {
    /// Runs requests as one batch, and tells of it.
    fn attempt(
        &mut self,
        jobs: &[QueuedRequest],
        closed: CloseReason,
        expected: Duration,
    ) -> Result<Completed, Failure> {
        let Self { shared, engine, lane } = self;
        let requests: Vec<&PreparedRequest> = jobs.iter().map(|job| &job.request).collect();
        let rows = requests.iter().map(|request| request.rows).sum();
        let span = tracing::debug_span!(
            "batch", model = %shared.signature.model, version = %shared.version, %lane, rows,
            requests = requests.len(), %closed, expected_ms = milliseconds(expected),
            duration_ms = tracing::field::Empty, succeeded = tracing::field::Empty,
        );
        let entered = span.enter();
        let started = Instant::now();
        let outcome = engine.run(&requests);
        let duration = outcome.as_ref().map_or_else(|_| started.elapsed(), |done| done.compute_infer);
        let succeeded = outcome.is_ok();
        if !span.is_disabled() {
            span.record("duration_ms", milliseconds(duration)).record("succeeded", succeeded);
            tracing::debug!("Batch executed");
        }
        drop(entered);
        let requests = requests.len();
        let (compute_input, compute_output) = outcome
            .as_ref()
            .map_or_else(|_| Default::default(), |done| (done.compute_input, done.compute_output));
        let report = BatchReport {
            rows,
            requests,
            lane: *lane,
            closed,
            expected,
            compute_input,
            duration,
            compute_output,
            succeeded,
        };
        shared.observer.batch_executed(shared.labels(), &report);
        if !succeeded {
            shared.observer.work_wasted(shared.labels(), DeadWork::Failed, rows, duration);
        }
        outcome
    }

    /// Answers the requests of a batch that failed: halves of it are run again until a bad request is alone, unless
    /// it is the backend that is broken.
    ///
    /// # Errors
    /// With the requests that were not run, when the backend is broken and cannot be made anew at once.
    fn recover(&mut self, jobs: Vec<QueuedRequest>, failure: Failure) -> Result<(), Stranded> {
        let error = match failure {
            Failure::Backend(error) => error,
            Failure::Panic(message) => {
                return if self.answer_panicked(jobs, &message) { Ok(()) } else { Err(Vec::new()) };
            }
        };
        if error.kind() == FailureKind::OutOfMemory {
            let mut parts = Vec::new();
            self.divide(jobs, &error, &mut parts);
            return self.run_again(parts);
        }
        match self.engine.check(&error) {
            Ok(Condition::Sound) => {
                let mut parts = Vec::new();
                self.divide(jobs, &error, &mut parts);
                self.run_again(parts)
            }
            Ok(Condition::Broken) => {
                self.shared.log_failure("An instance is broken and is made anew", &error.to_string());
                Err(vec![jobs])
            }
            Ok(Condition::Rebuilt) => {
                self.shared.log_failure("An instance was broken and has been rebuilt", &error.to_string());
                self.run_again(vec![jobs])
            }
            Err(detail) => {
                self.shared.log_failure(NOT_REBUILT, &detail);
                Err(vec![jobs])
            }
        }
    }

    /// Runs parts of a failed batch, the last one first.
    ///
    /// # Errors
    /// As [`BatchRun::recover`].
    fn run_again(&mut self, mut parts: Vec<Vec<QueuedRequest>>) -> Result<(), Stranded> {
        while let Some(part) = parts.pop() {
            let jobs = self.still_wanted(part);
            let Some(rows) = jobs.iter().map(|job| job.request.rows).reduce(|a, b| a + b) else { continue };
            let taken_at = Instant::now();
            match self.attempt(&jobs, CloseReason::Retry, self.shared.expected(self.lane, rows)) {
                Ok(completed) => answer(self.shared, jobs, taken_at, completed),
                Err(Failure::Backend(error)) if error.kind() == FailureKind::DeviceLost => {
                    self.shared.log_failure(
                        "The device was lost while a failed batch was run again",
                        &error.to_string(),
                    );
                    self.engine.broke(&error);
                    parts.push(jobs);
                    return Err(parts);
                }
                Err(Failure::Backend(error)) => self.divide(jobs, &error, &mut parts),
                Err(Failure::Panic(message)) => {
                    if !self.answer_panicked(jobs, &message) {
                        return Err(parts);
                    }
                }
            }
        }
        Ok(())
    }

    /// Halves what failed, to be run again; a request that failed alone is answered.
    fn divide(
        &self,
        mut jobs: Vec<QueuedRequest>,
        error: &BackendError,
        parts: &mut Vec<Vec<QueuedRequest>>,
    ) {
        if error.kind() == FailureKind::OutOfMemory {
            self.shared.batch_did_not_fit(jobs.iter().map(|job| job.request.rows).sum(), error);
        }
        if jobs.len() > 1 {
            tracing::warn!(
                model = %self.shared.signature.model, version = %self.shared.version, requests = jobs.len(), %error,
                "A batch failed: its halves are run again"
            );
            let second = jobs.split_off(jobs.len().div_ceil(2));
            parts.extend([second, jobs]);
            return;
        }
        for job in jobs {
            if error.kind() == FailureKind::OutOfMemory && job.request.rows > 1 {
                // That was logged, and the same request would be refused now.
                let sentence = self.shared.no_room(job.request.rows, &lock(&self.shared.state));
                self.shared.reply(job, Err(sentence));
                continue;
            }
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

    /// Those whose callers still wait; the others are answered.
    fn still_wanted(&self, jobs: Vec<QueuedRequest>) -> Vec<QueuedRequest> {
        let now = self.shared.now();
        let wanted = |job| match over(&job, now) {
            None => Some(job),
            Some(reason) => {
                self.shared.answer_dropped(Dropped { job, reason });
                None
            }
        };
        jobs.into_iter().filter_map(wanted).collect()
    }

    /// Answers a batch that panicked, and makes a new backend. Gives whether there is one.
    fn answer_panicked(&mut self, jobs: Vec<QueuedRequest>, message: &str) -> bool {
        self.shared.log_failure("An instance panicked while it ran a batch", message);
        for job in jobs {
            let sentence = format!(
                "Model `{}` failed unexpectedly; the server's log says why.",
                self.shared.signature.model
            );
            self.shared.reply(job, Err(ServingError::Internal(sentence)));
        }
        made_anew(self.shared, self.engine)
    }
}

/// Parts of a batch that nothing can run now.
type Stranded = Vec<Vec<QueuedRequest>>;

/// Tells callers not to wait for a new backend. Always an error, as nothing was run.
fn answer_stranded(shared: &Shared, stranded: Stranded) -> Result<(), ()> {
    for job in stranded.into_iter().flatten() {
        shared.reply(job, Err(shared.being_rebuilt()));
    }
    Err(())
}

/// Makes a new backend, unless that takes long; requests go on being queued meanwhile. Gives whether there is one.
fn made_anew(shared: &Shared, engine: &mut Engine) -> bool {
    if engine.takes_long() {
        engine.broke(&BackendError::new("it panicked, and is made anew"));
        return false;
    }
    let rebuilt = engine.rebuild(shared.most_rows(), &|| true);
    if let Err(detail) = &rebuilt {
        shared.log_failure(NOT_REBUILT, detail);
    }
    rebuilt.is_ok()
}

/// Gives each caller its outputs.
fn answer(shared: &Shared, jobs: Vec<QueuedRequest>, taken_at: Instant, mut completed: Completed) {
    let batch_size: usize = jobs.iter().map(|job| job.request.rows).sum();
    let labels = shared.labels();
    for (job, outputs) in jobs.into_iter().zip(std::mem::take(&mut completed.answers)) {
        let report = completed.report(job.request.rows, job.enqueued_at, taken_at);
        let inference = report.compute_input + report.compute_infer + report.compute_output;
        let response = InferenceResponse { outputs, queue: report.queue, inference, batch_size };
        let is_late = job.deadline.is_some_and(|deadline| deadline <= shared.now());
        let is_wanted = shared.reply(job, Ok(response));
        if is_wanted {
            shared.observer.request_succeeded(labels, &report);
        }
        if is_late || !is_wanted {
            let why = if is_late { DeadWork::Late } else { DeadWork::Abandoned };
            let compute = report.compute_infer.mul_f64(report.rows as f64 / batch_size as f64);
            shared.observer.work_wasted(labels, why, report.rows, compute);
        }
    }
}
