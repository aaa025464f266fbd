//! Queues requests, closes batches and runs them: what stands between a model version and its backends.
//!
//! | module | what it holds |
//! |---|---|
//! | `request` | a request on its way |
//! | `admission` | does a request fit the model? |
//! | `policy` | which requests run next: a pure state machine |
//! | `profile` | how long a batch takes, by its size |
//! | `shared` | the queue under its lock |
//! | `instance` | the thread that owns an engine, and the engine that all share |
//! | `engine` | a backend at work |
//! | `way` | how long requests take into the queue |
//! | `objective` | what is said of the objective that is kept |
//! | `repair` | what is broken, and when it is tried again |
//! | `batch`, `pixels` | requests become a batch, outputs become answers |
//! | `assembly` | the same by itself, for benchmarks |
//! | `observer` | what metrics are told |
//!
//! Callers' tasks put requests into the queue under a short lock; instances' threads take batches out of it.

mod admission;
pub mod assembly;
mod batch;
mod engine;
mod instance;
mod objective;
mod observer;
mod pixels;
pub mod policy;
mod profile;
mod repair;
mod request;
mod shared;
mod way;

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::Span;

use crate::backend::{Backend, BackendFactory};
use crate::error::ServingError;
use engine::Engine;
use instance::ModelInstance;
use policy::{BatchPolicy, Refused};
use repair::WideEngine;
use request::{QueuedRequest, Reply};
use shared::{Shared, State, expired};

pub(crate) use batch::{DryRun, every_size};
pub(crate) use shared::lock;

pub(crate) use admission::names;
pub use admission::{InputSpec, PixelInput, Signature};
pub use observer::{
    BatchReport, BrokenInstances, CloseReason, DeadWork, ModelLabels, NoObserver, RefusalReason,
    RequestReport, ServingObserver, Stage,
};
pub use pixels::{Layout, PixelConversion, PixelType};
pub use policy::{Lane, PolicyLimits, QueuePolicy};
pub use profile::{LatencyProfile, Profiles};
pub use request::{InferenceRequest, InferenceResponse, MemoryAccount, OutputMeter};

/// The queue of one model version and the instances that serve it.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One instance to be: its backend, and what makes a new one when it breaks.
pub struct InstanceParts {
    /// Warm and ready.
    pub backend: Box<dyn Backend>,
    /// For a backend like it.
    pub factory: Arc<dyn BackendFactory>,
}

/// The backends of a model version.
pub struct Instances {
    /// Those that work side by side, each on its own thread. One at least.
    pub narrow: Vec<InstanceParts>,
    /// One that has the whole machine for a batch, while no other works.
    pub wide: Option<InstanceParts>,
}

impl From<Vec<InstanceParts>> for Instances {
    fn from(narrow: Vec<InstanceParts>) -> Self {
        Self { narrow, wide: None }
    }
}

/// What a scheduler serves, and how.
pub struct SchedulerOptions {
    /// What requests are checked against.
    pub signature: Arc<Signature>,
    /// Version of the model, for labels and logs.
    pub version: String,
    /// What the policy keeps to; its lanes are the instances given to [`Scheduler::start`]. A batch size below the
    /// signature's is what the device has memory for: requests of more rows are refused.
    pub limits: PolicyLimits,
    /// How long batches take.
    pub profiles: Profiles,
    /// Who is told.
    pub observer: Arc<dyn ServingObserver>,
    /// What the outputs of batches are counted in, if they are.
    pub outputs: Option<Arc<dyn OutputMeter>>,
}

impl Scheduler {
    /// Starts a thread for each narrow instance.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(options: SchedulerOptions, instances: impl Into<Instances>) -> std::io::Result<Self> {
        let SchedulerOptions { signature, version, limits, profiles, observer, outputs } = options;
        let Instances { narrow, wide } = instances.into();
        let limits = PolicyLimits {
            max_batch_size: limits.max_batch_size.min(signature.max_batch_size).max(1),
            lanes: narrow.len(),
            wide: wide.is_some(),
            ..limits
        };
        let max_batch_size = limits.max_batch_size;
        let too_many_rows = (max_batch_size < signature.max_batch_size).then_some(max_batch_size + 1);
        let engine = |parts| Engine::new(&signature, parts, outputs.clone());
        let wide = wide.map(|parts| Mutex::new(WideEngine::new(engine(parts))));
        let engines: Vec<Engine> = narrow.into_iter().map(engine).collect();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(BatchPolicy::new(limits, profiles), engines.len(), too_many_rows)),
            signature,
            version,
            observer,
            epoch: Instant::now(),
            wide,
            wake: engines.iter().map(|_| Condvar::new()).collect(),
            stopped: Condvar::new(),
        });
        shared.tell_objective(&mut lock(&shared.state));
        shared.observer.batch_limit(shared.labels(), max_batch_size);
        let scheduler = Self { shared, threads: Mutex::new(Vec::with_capacity(engines.len())) };
        for (number, engine) in engines.into_iter().enumerate() {
            let instance = ModelInstance::new(number, Arc::clone(&scheduler.shared), engine);
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
        // Dropped last, when nobody waits for the request any more.
        let mut waiting = Waiting { shared: &self.shared, in_queue: false };
        let answer = match self.submit(request, deadline) {
            Ok(answer) => {
                waiting.in_queue = true;
                await_answer(answer, deadline).await
            }
            Err(error) => Err(error),
        };
        // Whose deadline passes may still be in the queue as well.
        waiting.in_queue &= matches!(answer, Err(ServingError::DeadlineExceeded(_)));
        if let Err(error) = &answer {
            self.shared.observer.request_failed(self.shared.labels(), error.code());
        }
        answer
    }

    /// Requests that wait.
    pub fn pending(&self) -> usize {
        lock(&self.shared.state).policy.len()
    }

    /// Instances that have no working backend now.
    pub fn broken_instances(&self) -> BrokenInstances {
        lock(&self.shared.state).broken.clone()
    }

    /// What is known about how long batches take.
    pub fn profiles(&self) -> Profiles {
        lock(&self.shared.state).policy.profiles().clone()
    }

    /// Why a request of so many rows with this deadline of its caller's would be refused now, if so: for when only
    /// its headers are known.
    pub fn would_refuse(&self, rows: usize, deadline: Option<Instant>) -> Option<ServingError> {
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(self.shared.epoch));
        let mut state = lock(&self.shared.state);
        let pending = state.policy.len();
        let refusal = state.policy.would_refuse(self.shared.now(), rows, deadline);
        if state.policy.len() != pending {
            self.shared.note_pending(&state);
        }
        drop(state);
        refusal.map(|reason| self.shared.refused(reason))
    }

    /// Rows that are worth running at once.
    pub fn preferred_batch_size(&self) -> usize {
        lock(&self.shared.state).policy.preferred_batch_size()
    }

    /// To be called when devices may have been lost or found again: every instance then looks for its own. Gives whether
    /// there still is a scheduler.
    pub(crate) fn look_at_devices(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || {
            shared.upgrade().is_some_and(|shared| {
                shared.look_at_devices();
                true
            })
        }
    }

    /// Refuses new requests from now on; what is queued is still run.
    pub fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.stopping = true;
        state.policy.drain();
        drop(state);
        self.shared.wake_all();
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
        let (priority, account, arrived) = (request.priority, request.account.clone(), request.arrived);
        let request = shared.signature.prepare(request)?;
        let (reply, answer) = oneshot::channel();
        let enqueued_at = Instant::now();
        let refuse = |reason| shared.observer.request_refused(shared.labels(), reason, Stage::Arrival);
        if deadline.is_some_and(|deadline| deadline <= enqueued_at) {
            refuse(RefusalReason::Expired);
            return Err(expired());
        }
        let own = deadline.map(|deadline| deadline.saturating_duration_since(shared.epoch));
        let span = Span::current();
        let mut state = lock(&shared.state);
        if state.stopping {
            refuse(RefusalReason::Unavailable);
            return Err(ServingError::Unavailable(format!(
                "Model `{}` is stopping and takes no more requests.",
                shared.signature.model
            )));
        }
        if state.broken.is_all() {
            refuse(RefusalReason::Unavailable);
            return Err(shared.being_rebuilt());
        }
        if state.has_no_room_for(request.rows) {
            return Err(shared.no_room(request.rows, &state));
        }
        let now = shared.now();
        let taken = arrived.map(|arrived| enqueued_at.saturating_duration_since(arrived));
        if let Some(way) = taken.and_then(|taken| state.way.observe(taken)) {
            state.policy.set_way(way);
        }
        let deadline = state.policy.deadline(now, own);
        let job = QueuedRequest {
            request,
            reply,
            enqueued_at,
            deadline,
            own_deadline: own,
            priority,
            span,
            account,
        };
        let submitted = state.policy.submit(now, job);
        shared.note_pending(&state);
        shared.wake_for(state);
        match submitted {
            Ok(()) => Ok(answer),
            Err(Refused { reason, .. }) => {
                refuse(RefusalReason::of_refusal(reason));
                Err(shared.refused(reason))
            }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A caller that waits for the answer to a request.
struct Waiting<'a> {
    shared: &'a Shared,
    /// Whether the request may still be queued when this is dropped.
    in_queue: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.in_queue {
            self.shared.caller_gone();
        }
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
    answer.unwrap_or_else(|_| {
        Err(ServingError::Internal("The request was lost; the server's log says why.".to_owned()))
    })
}

#[cfg(test)]
mod tests;
