//! What callers and instances share: the queue under its lock, and how requests are answered.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::admission::Signature;
use super::observer::{ModelLabels, RefusalReason, ServingObserver, Stage};
use super::policy::{BatchPolicy, Dispatch, DropReason, Dropped, Lane, Refusal};
use super::request::{QueuedRequest, Reply};
use crate::error::ServingError;

/// What callers and instances share.
pub(crate) struct Shared {
    pub(crate) signature: Arc<Signature>,
    pub(crate) version: String,
    pub(crate) observer: Arc<dyn ServingObserver>,
    pub(crate) instances: usize,
    /// The instant that the policy's time counts from.
    pub(crate) epoch: Instant,
    pub(crate) state: Mutex<State>,
    /// Notified when there is work, and when the scheduler stops.
    pub(crate) wake: Condvar,
    /// Notified when the scheduler stops, for those who wait for something else than work.
    pub(crate) stopped: Condvar,
}

pub(crate) struct State {
    pub(crate) policy: BatchPolicy<QueuedRequest>,
    pub(crate) stopping: bool,
    /// Instances that have no working backend.
    pub(crate) broken: usize,
}

impl Shared {
    /// Waits for something to do; `None` when the scheduler stops and nothing is left.
    pub(crate) fn next_dispatch(&self) -> Option<Dispatch<QueuedRequest>> {
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
            state = match dispatch.wake_at {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let wait = at.saturating_sub(self.now());
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(crate) fn batch_ended(&self, lane: Lane, rows: usize, duration: Option<Duration>) {
        let mut state = lock(&self.state);
        state.policy.completed(self.now(), lane, rows, duration);
        let waiting = lane == Lane::Wide && !state.policy.is_empty();
        drop(state);
        // The other instances could not take anything while the wide lane was in use.
        if waiting {
            self.wake.notify_all();
        }
    }

    pub(crate) fn expected(&self, rows: usize) -> Duration {
        lock(&self.state).policy.profiles().narrow.expected(rows)
    }

    /// Answers a request; gives whether its caller was still there.
    pub(crate) fn reply(&self, job: QueuedRequest, reply: Reply) -> bool {
        job.reply.send(reply).is_ok()
    }

    pub(crate) fn answer_dropped(&self, Dropped { job, reason }: Dropped<QueuedRequest>) {
        self.observer.request_refused(self.labels(), RefusalReason::of_drop(reason), Stage::Queue);
        let error = match reason {
            DropReason::Abandoned => {
                self.observer.request_abandoned(self.labels());
                return;
            }
            DropReason::Expired => expired(),
            DropReason::Crowded { retry_after } => self.refused(Refusal::Crowded { retry_after }),
            DropReason::Hopeless { needs } => self.refused(Refusal::Hopeless { needs }),
        };
        self.reply(job, Err(error));
    }

    /// What a refusal says to its caller.
    pub(crate) fn refused(&self, reason: Refusal) -> ServingError {
        let model = &self.signature.model;
        match reason {
            Refusal::Crowded { retry_after } => ServingError::Overloaded {
                detail: format!("Model `{model}` has too much to do to meet the deadline"),
                retry_after,
            },
            Refusal::QueueFull { retry_after } => ServingError::Overloaded {
                detail: format!("The queue of model `{model}` is full"),
                retry_after,
            },
            Refusal::Hopeless { needs } => ServingError::DeadlineExceeded(format!(
                "The deadline is shorter than the {:.1} ms that model `{model}` needs: allow more time.",
                needs.as_secs_f64() * 1e3
            )),
        }
    }

    /// Notes that an instance has no working backend. When none has, nobody is left waiting.
    pub(crate) fn instance_broken(&self) {
        let mut state = lock(&self.state);
        state.broken += 1;
        let stranded = if state.broken == self.instances { state.policy.take_all() } else { Vec::new() };
        drop(state);
        for job in stranded {
            self.reply(job, Err(self.being_rebuilt()));
        }
    }

    pub(crate) fn instance_repaired(&self) {
        lock(&self.state).broken -= 1;
    }

    /// Waits; gives false when the scheduler stops.
    pub(crate) fn pause(&self, duration: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.stopped.wait_timeout_while(state, duration, |state| !state.stopping);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    pub(crate) fn being_rebuilt(&self) -> ServingError {
        ServingError::Unavailable(format!(
            "Model `{}` failed and is being loaded again: try again shortly.",
            self.signature.model
        ))
    }

    pub(crate) fn log_failure(&self, what: &str, detail: &str) {
        tracing::error!(model = %self.signature.model, version = %self.version, detail, "{what}");
    }

    pub(crate) fn labels(&self) -> ModelLabels<'_> {
        ModelLabels { model: &self.signature.model, version: &self.version }
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

pub(crate) fn expired() -> ServingError {
    ServingError::DeadlineExceeded("The deadline of the request passed before it was answered.".to_owned())
}

/// A lock that a panic elsewhere does not close: the queue is valid between any two of its methods.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
