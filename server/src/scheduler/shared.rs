//! What callers and instances share: the queue under its lock, and how requests are answered.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::admission::Signature;
use super::objective::ObjectiveLog;
use super::observer::{BrokenInstances, ModelLabels, RefusalReason, ServingObserver, Stage};
use super::policy::{BatchPolicy, Dispatch, DropReason, Dropped, Lane, Refusal, RunId};
use super::repair::WideEngine;
use super::request::{QueuedRequest, Reply};
use super::way::Way;
use crate::backend::BackendError;
use crate::error::ServingError;

/// The part of the queue whose callers may have gone before it is searched for them: one over this.
const SEARCHED_FOR: usize = 8;

/// What callers and instances share.
pub(crate) struct Shared {
    pub(crate) signature: Arc<Signature>,
    pub(crate) version: String,
    pub(crate) observer: Arc<dyn ServingObserver>,
    /// The instant that the policy's time counts from.
    pub(crate) epoch: Instant,
    pub(crate) state: Mutex<State>,
    /// The engine with all cores, if there is one.
    pub(crate) wide: Option<Mutex<WideEngine>>,
    /// One for each instance: notified when there is work for it, and when the scheduler stops.
    pub(crate) wake: Vec<Condvar>,
    /// Notified when the scheduler stops, for those who wait for something else than work.
    pub(crate) stopped: Condvar,
}

pub(crate) struct State {
    pub(crate) policy: BatchPolicy<QueuedRequest>,
    pub(crate) stopping: bool,
    /// Instances that have no working backend.
    pub(crate) broken: BrokenInstances,
    /// Whether the wide lane is in use, and nobody else can take anything.
    wide_running: bool,
    /// Instances that wait to be woken. The last to come is the first to be woken: its core and its threads are warm,
    /// and lone requests do not wander from core to core.
    idle: Vec<usize>,
    /// When the first instance that waits for a fuller batch looks again.
    alarm: Option<Duration>,
    /// Callers that have gone since the queue was last searched for their requests, about.
    gone: usize,
    pub(crate) way: Way,
    pub(crate) objective_log: ObjectiveLog,
    /// Instances that are to look whether their device is still there.
    to_look: BTreeSet<usize>,
    /// The fewest rows that the device had no memory for; `None`: none are known. A request of so many, or more, would fail.
    too_many_rows: Option<usize>,
}

impl State {
    pub(crate) fn new(
        policy: BatchPolicy<QueuedRequest>,
        instances: usize,
        too_many_rows: Option<usize>,
    ) -> Self {
        let broken = BrokenInstances { of: instances, ..BrokenInstances::default() };
        Self {
            policy,
            stopping: false,
            broken,
            wide_running: false,
            idle: Vec::new(),
            alarm: None,
            gone: 0,
            way: Way::new(),
            objective_log: ObjectiveLog::default(),
            to_look: BTreeSet::new(),
            too_many_rows,
        }
    }

    /// Whether it is known that the device has no memory for so many rows.
    pub(crate) fn has_no_room_for(&self, rows: usize) -> bool {
        self.too_many_rows.is_some_and(|known| rows >= known)
    }

    /// The instance to wake for what is queued, if any. The caller must do it.
    fn claim_idle(&mut self) -> Option<usize> {
        if self.wide_running || self.policy.is_empty() { None } else { self.idle.pop() }
    }
}

impl Shared {
    /// Waits for something to do for the instance of this number; `None` when the scheduler stops and nothing is left.
    ///
    /// Who takes something wakes the next one while there is more: as many are woken as have work.
    pub(crate) fn next_dispatch(&self, instance: usize) -> Option<Dispatch<QueuedRequest>> {
        let mut state = lock(&self.state);
        loop {
            // An instance whose device may be lost looks before it takes anything.
            if state.to_look.remove(&instance) && !state.stopping {
                return Some(Dispatch { dropped: Vec::new(), batch: None, wake_at: None });
            }
            let dispatch = state.policy.dispatch(self.now());
            if dispatch.batch.is_some() || !dispatch.dropped.is_empty() {
                state.wide_running |= dispatch.batch.as_ref().is_some_and(|batch| batch.lane == Lane::Wide);
                self.note_pending(&state);
                self.wake_for(state);
                return Some(dispatch);
            }
            // While something is queued that only one lane may take, or none just now, whoever has it may yet break.
            if state.stopping && state.policy.is_empty() {
                drop(state);
                // Others wait for the same.
                self.wake_all();
                return None;
            }
            state = self.wait(instance, state, dispatch.wake_at);
        }
    }

    /// Has every instance look whether its device is still there.
    pub(crate) fn look_at_devices(&self) {
        lock(&self.state).to_look.extend(0..self.wake.len());
        self.wake_all();
    }

    /// Waits to be woken, or until `wake_at` unless another instance looks no later anyway.
    fn wait<'a>(
        &self,
        instance: usize,
        mut state: MutexGuard<'a, State>,
        wake_at: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let wake = &self.wake[instance];
        state.idle.push(instance);
        let alarm = wake_at.filter(|&at| state.alarm.is_none_or(|earlier| at < earlier));
        let mut state = match alarm {
            None => wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                state.alarm = alarm;
                let time = at.saturating_sub(self.now());
                let mut state = wake.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
                if state.alarm == alarm {
                    state.alarm = None;
                }
                state
            }
        };
        // Whoever was woken is not among them any more; who woke for another reason is.
        state.idle.retain(|&idle| idle != instance);
        state
    }

    /// Tells how many requests wait: under the lock, or an older number could come last and stay.
    pub(crate) fn note_pending(&self, state: &State) {
        self.observer.pending_requests(self.labels(), state.policy.len());
    }

    /// Wakes an instance if one can take what is queued.
    pub(crate) fn wake_for(&self, mut state: MutexGuard<'_, State>) {
        let instance = state.claim_idle();
        drop(state);
        if let Some(instance) = instance {
            self.wake[instance].notify_one();
        }
    }

    /// Wakes every instance, to see that the scheduler stops.
    pub(crate) fn wake_all(&self) {
        self.wake.iter().for_each(Condvar::notify_one);
    }

    pub(crate) fn batch_ended(&self, id: RunId, lane: Lane, duration: Option<Duration>) {
        let mut state = lock(&self.state);
        let planned = state.policy.objective();
        state.policy.completed(self.now(), id, duration);
        if state.policy.objective() != planned {
            self.tell_objective(&mut state);
        }
        if lane == Lane::Wide {
            // The others could not take anything meanwhile; who ran it answers its callers first.
            state.wide_running = false;
            if state.stopping {
                self.wake_all();
            } else {
                self.wake_for(state);
            }
        }
    }

    /// Notes that the device had no memory for a batch of so many rows: from now on batches have half of them at most, as
    /// have the parts that this one is divided into, and a request that has as many by itself is refused.
    pub(crate) fn batch_did_not_fit(&self, rows: usize, error: &BackendError) {
        let mut state = lock(&self.state);
        let is_shorter = rows.div_ceil(2) < state.policy.max_batch_size();
        if is_shorter {
            state.policy.limit_batches(rows.div_ceil(2));
            self.observer.batch_limit(self.labels(), state.policy.max_batch_size());
        }
        // What has no memory for a single row has none for anything just now, and is asked again.
        let is_news = rows > 1 && !state.has_no_room_for(rows);
        if is_news {
            state.too_many_rows = Some(rows);
        }
        let most = state.policy.max_batch_size();
        drop(state);
        if is_shorter || is_news {
            let refused = if rows > 1 {
                format!(", and requests of {rows} rows or more are refused")
            } else {
                String::new()
            };
            tracing::warn!(
                model = %self.signature.model, version = %self.version, rows, %error,
                "The device has no memory for a batch of {rows} rows: until the model is loaded again batches have {most} \
                 at most{refused}"
            );
        }
    }

    /// What the caller of a request of so many rows is told, for which the device has no memory.
    pub(crate) fn no_room(&self, rows: usize, state: &State) -> ServingError {
        ServingError::TooLarge(format!(
            "The device has no memory for {rows} rows of model `{}` at once: send several requests of at most {}.",
            self.signature.model,
            state.policy.max_batch_size()
        ))
    }

    pub(crate) fn expected(&self, lane: Lane, rows: usize) -> Duration {
        lock(&self.state).policy.profiles().of(lane).expected(rows)
    }

    /// Answers a request, whose inputs are freed before that: from then on what it holds is counted as its answer. Gives
    /// whether its caller was still there.
    pub(crate) fn reply(&self, job: QueuedRequest, reply: Reply) -> bool {
        let QueuedRequest { request, account, reply: caller, .. } = job;
        drop(request);
        drop(account);
        caller.send(reply).is_ok()
    }

    pub(crate) fn answer_dropped(&self, Dropped { job, reason }: Dropped<QueuedRequest>) {
        let reason = job.why_dropped(reason, self.now(), || self.expected(Lane::Narrow, job.request.rows));
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

    /// Notes that a caller has gone. When an eighth of the queue may be of such, they are taken out, and their memory is
    /// freed: a search for each of thousands would take longer than all of them.
    pub(crate) fn caller_gone(&self) {
        let mut state = lock(&self.state);
        state.gone += 1;
        if state.gone * SEARCHED_FOR < state.policy.len() {
            return;
        }
        state.gone = 0;
        let dead = state.policy.take_dead(self.now());
        self.note_pending(&state);
        drop(state);
        dead.into_iter().for_each(|dropped| self.answer_dropped(dropped));
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
                milliseconds(needs)
            )),
        }
    }

    /// Notes that an instance has no working backend, and why. When none has, nobody is left waiting.
    pub(crate) fn instance_broken(&self, reason: &str) {
        let mut state = lock(&self.state);
        state.broken.broken += 1;
        reason.clone_into(&mut state.broken.reason);
        let stranded = if state.broken.is_all() { state.policy.take_all() } else { Vec::new() };
        self.note_pending(&state);
        self.note_broken(&mut state);
        let is_over = state.stopping && state.policy.is_empty();
        // What this one would have run is another's now.
        self.wake_for(state);
        if is_over {
            self.wake_all();
        }
        for job in stranded {
            self.reply(job, Err(self.being_rebuilt()));
        }
    }

    /// Notes why a broken instance is still broken.
    pub(crate) fn still_broken(&self, reason: &str) {
        let mut state = lock(&self.state);
        if state.broken.reason != reason {
            reason.clone_into(&mut state.broken.reason);
            self.note_broken(&mut state);
        }
    }

    pub(crate) fn instance_repaired(&self) {
        let mut state = lock(&self.state);
        state.broken.broken -= 1;
        self.note_broken(&mut state);
    }

    /// Notes whether the engine with all cores is broken: why, if so.
    pub(crate) fn wide_broken(&self, reason: Option<&str>) {
        let mut state = lock(&self.state);
        state.broken.wide = reason.is_some();
        if let Some(reason) = reason {
            reason.clone_into(&mut state.broken.reason);
        }
        self.note_broken(&mut state);
    }

    /// Tells how many instances are broken: under the lock, or an older number could come last and stay.
    fn note_broken(&self, state: &mut State) {
        if state.broken.count() == 0 {
            state.broken.reason.clear();
        }
        state.policy.set_working_lanes(state.broken.of - state.broken.broken);
        self.observer.instances_broken(self.labels(), &state.broken);
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

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

pub(crate) fn expired() -> ServingError {
    ServingError::DeadlineExceeded("The deadline of the request passed before it was answered.".to_owned())
}

/// A lock that a panic elsewhere does not close: the queue is valid between any two of its methods.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
