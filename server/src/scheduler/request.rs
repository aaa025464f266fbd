//! A request on its way through the scheduler.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Span;

use super::policy::{DropReason, Job};
use crate::error::ServingError;
use crate::limits::Permit;
use crate::tensor::{Shape, Tensor};

/// Tensors for a model. Outputs asked for are the model's own; `detections` is none of them.
#[derive(Clone, Debug, Default)]
pub struct InferenceRequest {
    /// The caller's id, for logs. May be empty.
    pub id: String,
    /// Every input of the model, in any order. A vision model's image input takes the declared data type, or UINT8
    /// `[n,h,w,3]`.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty: all. Detections are made from all.
    pub outputs: Vec<String>,
    /// 1 is the first to run; 0 is the model's default.
    pub priority: u32,
    /// When its headers came. `None`: it did not come over a network by itself.
    pub arrived: Option<Instant>,
    /// What the memory of the inputs is counted in. It is let go when they are freed, which is after its caller when that
    /// has gone while the request was queued or ran.
    pub account: MemoryAccount,
}

/// What a request's memory is counted in; the default counts nothing.
#[derive(Clone, Debug, Default)]
pub struct MemoryAccount {
    _permit: Option<Permit>,
}

impl MemoryAccount {
    /// The account of a call.
    pub(crate) fn of(permit: Option<&Permit>) -> Self {
        Self { _permit: permit.cloned() }
    }
}

/// Told how much memory the outputs of batches take, and when it is free again. The rows of a batch are views of one
/// buffer: who still holds one row holds all of it.
pub trait OutputMeter: fmt::Debug + Send + Sync {
    /// So many bytes are taken.
    fn take(&self, bytes: usize);
    /// So many are free again.
    fn give_back(&self, bytes: usize);
}

/// What a model answered.
#[derive(Clone, Debug)]
pub struct InferenceResponse {
    /// The outputs asked for, in the order asked for, else in the model's.
    pub outputs: Vec<Tensor>,
    /// From arrival in the queue until an instance took the request.
    pub queue: Duration,
    /// What its batch took: written, run and split.
    pub inference: Duration,
    /// Rows of the batch it was part of.
    pub batch_size: usize,
}

/// How an input's bytes become the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// They are what the model takes.
    Declared,
    /// They are pixels, UINT8 `[n,h,w,3]`, to be converted.
    Pixels,
}

/// One input of a request that fits the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedInput {
    /// Shape of the model's tensor (after conversion) without the batch dimension.
    pub(crate) row_shape: Shape,
    /// Bytes of the request.
    pub(crate) data: Bytes,
    /// What they are.
    pub(crate) encoding: Encoding,
}

/// A request that fits the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedRequest {
    /// The caller's id, for logs.
    pub(crate) id: String,
    /// Rows, at least 1.
    pub(crate) rows: usize,
    /// One for each input of the model, in the model's order.
    pub(crate) inputs: Vec<PreparedInput>,
    /// Positions of the outputs wanted among the model's.
    pub(crate) outputs: Vec<usize>,
}

impl PreparedRequest {
    /// Whether both can be rows of one tensor.
    pub(crate) fn same_row_shapes(&self, other: &Self) -> bool {
        self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.row_shape == b.row_shape)
    }
}

/// What a queued request's caller waits for.
pub(crate) type Reply = Result<InferenceResponse, ServingError>;

/// A request in the queue.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    /// What to run.
    pub(crate) request: PreparedRequest,
    /// Where the answer goes; closed when the caller has gone.
    pub(crate) reply: oneshot::Sender<Reply>,
    /// When it arrived.
    pub(crate) enqueued_at: Instant,
    /// When its answer is worth nothing any more, since the scheduler's start: its caller's deadline or the
    /// objective, whichever is earlier.
    pub(crate) deadline: Option<Duration>,
    /// The deadline of its caller, if it gave one.
    pub(crate) own_deadline: Option<Duration>,
    /// 1 is the first to run; 0 is the model's default.
    pub(crate) priority: u32,
    /// The caller's span, for log lines about this request.
    pub(crate) span: Span,
    /// What the inputs are counted in. Behind them, so that it is dropped after them.
    pub(crate) account: MemoryAccount,
}

impl QueuedRequest {
    /// Why it was dropped, as its caller is to see it: one for whom only the objective passed still waits, and may come again
    /// after `a_run`.
    pub(crate) fn why_dropped(
        &self,
        reason: DropReason,
        now: Duration,
        a_run: impl FnOnce() -> Duration,
    ) -> DropReason {
        let passed = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        match reason {
            DropReason::Expired if passed(self.deadline) && !passed(self.own_deadline) => {
                DropReason::Crowded { retry_after: a_run() }
            }
            reason => reason,
        }
    }
}

impl Job for QueuedRequest {
    fn rows(&self) -> usize {
        self.request.rows
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    fn has_own_deadline(&self) -> bool {
        self.own_deadline.is_some()
    }

    fn priority(&self) -> u32 {
        self.priority
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn batches_with(&self, other: &Self) -> bool {
        self.request.same_row_shapes(&other.request)
    }
}
