//! Queues requests, closes batches and runs them: what stands between a model version and its backends.
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | a request on its way |
//! | [`admission`] | does a request fit the model? |
//! | [`policy`] | which requests run next: a pure state machine |
//! | [`profile`] | how long a batch takes, by its size |
//! | [`instance`] | the thread that owns a backend |
//! | [`batch`], [`pixels`] | requests become a batch, outputs become answers |
//! | [`observer`] | what metrics are told |
//!
//! Callers' tasks put requests into the queue under a short lock; instances' threads take batches out of it.

mod admission;
mod batch;
mod instance;
mod observer;
mod pixels;
pub mod policy;
mod profile;
mod request;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

use crate::backend::{Backend, BackendFactory};
use crate::error::ServingError;
use instance::ModelInstance;
use policy::{BatchPolicy, Dispatch, DropReason, Dropped, PolicyLimits, Refused};
use request::{QueuedRequest, Reply};

pub(crate) use batch::DryRun;

pub use admission::{InputSpec, PixelInput, Signature};
pub use observer::{BatchReport, CloseReason, ModelLabels, NoObserver, RequestReport, ServingObserver};
pub use pixels::{Layout, PixelConversion, PixelType};
pub use profile::LatencyProfile;
pub use request::{InferenceRequest, InferenceResponse};

/// The queue of one model version and the instances that serve it.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What callers and instances share.
struct Shared {
    signature: Arc<Signature>,
    version: String,
    observer: Arc<dyn ServingObserver>,
    instances: usize,
    /// The instant that the policy's time counts from.
    epoch: Instant,
    state: Mutex<State>,
    /// Notified when there is work, and when the scheduler stops.
    wake: Condvar,
    /// Notified when the scheduler stops, for those who wait for something else than work.
    stopped: Condvar,
}

struct State {
    policy: BatchPolicy<QueuedRequest>,
    stopping: bool,
    /// Instances that have no working backend.
    broken: usize,
}

/// One instance to be: its backend, and what makes a new one when it breaks.
pub struct InstanceParts {
    /// Warm and ready.
    pub backend: Box<dyn Backend>,
    /// For a backend like it.
    pub factory: Arc<dyn BackendFactory>,
}

/// What a scheduler serves, and how.
pub struct SchedulerOptions {
    /// What requests are checked against.
    pub signature: Arc<Signature>,
    /// Version of the model, for labels and logs.
    pub version: String,
    /// Requests that may wait.
    pub queue_size: usize,
    /// How long batches take.
    pub profile: LatencyProfile,
    /// Who is told.
    pub observer: Arc<dyn ServingObserver>,
}

impl Scheduler {
    /// Starts a thread for each instance, of which there must be one at least.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(options: SchedulerOptions, instances: Vec<InstanceParts>) -> std::io::Result<Self> {
        let SchedulerOptions { signature, version, queue_size, profile, observer } = options;
        let limits = PolicyLimits {
            max_batch_size: signature.max_batch_size.max(1),
            queue_size,
            instances: instances.len(),
        };
        let state = State { policy: BatchPolicy::new(limits, profile), stopping: false, broken: 0 };
        let shared = Arc::new(Shared {
            signature,
            version,
            observer,
            instances: instances.len(),
            epoch: Instant::now(),
            state: Mutex::new(state),
            wake: Condvar::new(),
            stopped: Condvar::new(),
        });
        let scheduler = Self { shared, threads: Mutex::new(Vec::with_capacity(instances.len())) };
        for (number, InstanceParts { backend, factory }) in instances.into_iter().enumerate() {
            let instance = ModelInstance::new(Arc::clone(&scheduler.shared), factory, backend);
            // Linux shows 15 bytes of a thread's name: what tells the instances apart comes first.
            let name = format!("infer-{number}-{}", scheduler.shared.signature.model);
            let thread = thread::Builder::new().name(name).spawn(move || instance.run())?;
            lock(&scheduler.threads).push(thread);
        }
        Ok(scheduler)
    }

    /// Checks a request, queues it, and waits for its answer. Dropping the future takes the request out.
    ///
    /// # Errors
    /// As [`ModelVersion::infer`](crate::repository::ModelVersion::infer).
    pub async fn infer(
        &self,
        request: InferenceRequest,
        deadline: Option<Instant>,
    ) -> Result<InferenceResponse, ServingError> {
        let answer = match self.submit(request, deadline) {
            Ok(answer) => await_answer(answer, deadline).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &answer {
            self.shared.observer.request_failed(self.shared.labels(), error.code());
        }
        answer
    }

    /// Requests that wait.
    pub fn pending(&self) -> usize {
        lock(&self.shared.state).policy.len()
    }

    /// What is known about how long batches take.
    pub fn profile(&self) -> LatencyProfile {
        lock(&self.shared.state).policy.profile().clone()
    }

    /// Rows that are worth running at once.
    pub fn preferred_batch_size(&self) -> usize {
        lock(&self.shared.state).policy.preferred_batch_size()
    }

    /// Refuses new requests from now on; what is queued is still run.
    pub fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.stopping = true;
        state.policy.drain();
        drop(state);
        self.shared.wake.notify_all();
        self.shared.stopped.notify_all();
    }

    /// Closes, runs what is queued, and joins the instances' threads. Blocking.
    pub fn stop(&self) {
        self.close();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                self.shared.log_failure("An instance's thread ended by a panic", "see the lines before");
            }
        }
    }

    fn submit(
        &self,
        request: InferenceRequest,
        deadline: Option<Instant>,
    ) -> Result<oneshot::Receiver<Reply>, ServingError> {
        let shared = &self.shared;
        let request = shared.signature.prepare(request)?;
        let (reply, answer) = oneshot::channel();
        let enqueued_at = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= enqueued_at) {
            return Err(expired());
        }
        let job = QueuedRequest {
            request,
            reply,
            enqueued_at,
            deadline: deadline.map(|deadline| deadline.saturating_duration_since(shared.epoch)),
            span: Span::current(),
        };
        let mut state = lock(&shared.state);
        if state.stopping {
            return Err(ServingError::Unavailable(format!(
                "Model `{}` is stopping and takes no more requests.",
                shared.signature.model
            )));
        }
        if state.broken == shared.instances {
            return Err(shared.being_rebuilt());
        }
        let swept = if state.policy.is_full() { state.policy.sweep(shared.now()) } else { Vec::new() };
        let submitted = state.policy.submit(job);
        let pending = state.policy.len();
        drop(state);
        for dropped in swept {
            shared.answer_dropped(dropped);
        }
        shared.observer.pending_requests(shared.labels(), pending);
        match submitted {
            Ok(()) => {
                shared.wake.notify_one();
                Ok(answer)
            }
            Err(Refused { retry_after, .. }) => Err(ServingError::Overloaded {
                detail: format!("The queue of model `{}` is full", shared.signature.model),
                retry_after,
            }),
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Waits for something to do; `None` when the scheduler stops and nothing is left.
    fn next_dispatch(&self) -> Option<Dispatch<QueuedRequest>> {
        let mut state = lock(&self.state);
        loop {
            let dispatch = state.policy.dispatch(self.now());
            if dispatch.batch.is_some() || !dispatch.dropped.is_empty() {
                let pending = state.policy.len();
                drop(state);
                self.observer.pending_requests(self.labels(), pending);
                return Some(dispatch);
            }
            if state.stopping {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn batch_ended(&self, rows: usize, duration: Option<Duration>) {
        lock(&self.state).policy.completed(self.now(), rows, duration);
    }

    fn expected(&self, rows: usize) -> Duration {
        lock(&self.state).policy.profile().expected(rows)
    }

    /// Answers a request; gives whether its caller was still there.
    fn reply(&self, job: QueuedRequest, reply: Reply) -> bool {
        job.reply.send(reply).is_ok()
    }

    fn answer_dropped(&self, dropped: Dropped<QueuedRequest>) {
        let Dropped { job, reason } = dropped;
        let error = match reason {
            DropReason::Abandoned => {
                self.observer.request_abandoned(self.labels());
                return;
            }
            DropReason::Expired => expired(),
            DropReason::Crowded { retry_after } => ServingError::Overloaded {
                detail: format!("Model `{}` has too much to do to meet the deadline", self.signature.model),
                retry_after,
            },
            DropReason::Hopeless { needs } => ServingError::DeadlineExceeded(format!(
                "The deadline is shorter than the {:.1} ms that model `{}` needs: allow more time.",
                needs.as_secs_f64() * 1e3,
                self.signature.model
            )),
        };
        self.reply(job, Err(error));
    }

    /// Gives a request back if running it still makes sense.
    fn still_wanted(&self, job: QueuedRequest) -> Result<QueuedRequest, Dropped<QueuedRequest>> {
        match policy::over(&job, self.now()) {
            None => Ok(job),
            Some(reason) => Err(Dropped { job, reason }),
        }
    }

    /// Notes that an instance has no working backend. When none has, nobody is left waiting.
    fn instance_broken(&self) {
        let mut state = lock(&self.state);
        state.broken += 1;
        let stranded = if state.broken == self.instances { state.policy.take_all() } else { Vec::new() };
        drop(state);
        for job in stranded {
            self.reply(job, Err(self.being_rebuilt()));
        }
    }

    fn instance_repaired(&self) {
        lock(&self.state).broken -= 1;
    }

    /// Waits; gives false when the scheduler stops.
    fn pause(&self, duration: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.stopped.wait_timeout_while(state, duration, |state| !state.stopping);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    fn being_rebuilt(&self) -> ServingError {
        ServingError::Unavailable(format!(
            "Model `{}` failed and is being loaded again: try again shortly.",
            self.signature.model
        ))
    }

    fn log_failure(&self, what: &str, detail: &str) {
        tracing::error!(model = %self.signature.model, version = %self.version, detail, "{what}");
    }

    fn labels(&self) -> ModelLabels<'_> {
        ModelLabels { model: &self.signature.model, version: &self.version }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

async fn await_answer(answer: oneshot::Receiver<Reply>, deadline: Option<Instant>) -> Reply {
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => return Err(expired()),
        },
    };
    // An instance answers whatever it takes; only a panic outside of its model can lose a request.
    answer.unwrap_or_else(|_| Err(ServingError::Internal("The request was lost; the server's log says why.".to_owned())))
}

fn expired() -> ServingError {
    ServingError::DeadlineExceeded("The deadline of the request passed before it was answered.".to_owned())
}

/// A lock that a panic elsewhere does not close: the queue is valid between any two of its methods.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
