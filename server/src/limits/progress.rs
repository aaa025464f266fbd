//! Bodies that stop coming: what has come of them is held, and must not be held for ever.
//!
//! The rule is one least speed, in steps: each further [`STEP_BYTES`] of a body, or what is left of it, have
//! `--body-timeout` to come. A timeout for single reads (nginx's `client_body_timeout`) is kept by a byte now and then,
//! and an average (Apache's `MinRate`) lets who sent much at once be silent for hours.
//!
//! Only time spent waiting for the client counts. While we do not read, its window may be used up, and it cannot send: that
//! of the body's own stream, or that of the whole connection, by other streams of it ([`HeldBack`]).

use super::{EarlyRefusals, Reason};
use crate::error::ServingError;
use crate::scheduler::lock;
use std::collections::HashMap;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What has to come in each `--body-timeout`: 1.6 KB/s at its default, about what a telephone line with a modem carries.
const STEP_BYTES: usize = 16 << 10;
/// Before each message of gRPC: whether it is compressed (1), and its length (4, big-endian).
pub(crate) const MESSAGE_PREFIX_BYTES: usize = 5;

/// What of a request is due, and therefore waited for no longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// All of its body, as soon as its headers are there.
    Body,
    /// Of a stream of gRPC's messages those that have begun. The next one may come when it likes.
    Messages,
}

/// How a body progresses. See the [module](self).
pub(crate) struct Progress {
    /// `None`: it is waited for without end.
    timeout: Option<Duration>,
    /// Where the messages of a stream end; `None`: all of the body is due.
    messages: Option<Messages>,
    /// Bytes that have to come within `left`.
    due: usize,
    /// Time that they still have.
    left: Duration,
    /// When the wait for what comes next began.
    waiting_since: Option<Instant>,
    /// There since it was first waited for. It need not be set anew for each frame: one that fires early is set again.
    timer: Option<Pin<Box<Sleep>>>,
    refusals: EarlyRefusals,
    /// The client's end of the connection, and the streams of it that we do not read.
    connection: Option<(SocketAddr, HeldBack)>,
}

/// Streams that we do not read because the model has not answered what was read of them, by the client's end of their
/// connection. Together they may use up the connection's window, and nothing else on it can come.
#[derive(Clone)]
pub(crate) struct HeldBack {
    /// So many of them may.
    fill: usize,
    streams: Arc<Mutex<HashMap<SocketAddr, usize>>>,
}

/// A stream that is not read until this is dropped.
pub(crate) struct HeldStream {
    connection: SocketAddr,
    held: HeldBack,
}

impl HeldBack {
    /// None yet; `fill` of them may use up a connection's window.
    pub(crate) fn new(fill: usize) -> Self {
        Self { fill, streams: Arc::default() }
    }

    /// A stream of this connection is not read from now on.
    pub(crate) fn hold(&self, connection: SocketAddr) -> HeldStream {
        *lock(&self.streams).entry(connection).or_default() += 1;
        HeldStream { connection, held: self.clone() }
    }

    /// Whether they may have used up this connection's window.
    fn fill(&self, connection: SocketAddr) -> bool {
        lock(&self.streams).get(&connection).is_some_and(|&count| count >= self.fill)
    }
}

impl Drop for HeldStream {
    fn drop(&mut self) {
        let mut streams = lock(&self.held.streams);
        match streams.get_mut(&self.connection) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(streams.remove(&self.connection)),
        }
    }
}

impl Progress {
    /// Of a body that has not begun. One that is too slow is counted by `refusals`.
    pub(crate) fn new(timeout: Option<Duration>, due: Due, refusals: EarlyRefusals) -> Self {
        Self {
            timeout,
            messages: (due == Due::Messages).then(Messages::default),
            due: STEP_BYTES,
            left: timeout.unwrap_or_default(),
            waiting_since: None,
            timer: None,
            refusals,
            connection: None,
        }
    }

    /// The same, of a body on a connection on which streams may be held back.
    pub(crate) fn beside(mut self, connection: Option<SocketAddr>, held: &HeldBack) -> Self {
        self.connection = connection.map(|connection| (connection, held.clone()));
        self
    }

    /// Takes in that `data` has come.
    pub(super) fn came(&mut self, data: &[u8]) {
        let Some(timeout) = self.timeout else { return };
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let another = self.messages.as_mut().is_some_and(|messages| messages.read(data));
        if another || data.len() >= self.due {
            (self.due, self.left) = (STEP_BYTES, timeout);
        } else {
            self.due -= data.len();
        }
    }

    /// Waits while nothing comes; ready, with what its caller is told, when that is too long.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<ServingError> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        if self.messages.as_ref().is_some_and(|messages| !messages.is_within_one()) {
            return Poll::Pending;
        }
        loop {
            let deadline = *self.waiting_since.get_or_insert_with(Instant::now) + self.left;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            while Instant::now() < deadline {
                ready!(timer.as_mut().poll(cx));
                timer.as_mut().reset(deadline);
            }
            if !self.connection.as_ref().is_some_and(|(connection, held)| held.fill(*connection)) {
                break;
            }
            // It could not send. It has its time anew.
            (self.due, self.left, self.waiting_since) = (STEP_BYTES, timeout, None);
        }
        self.refusals.count(Reason::Slow);
        Poll::Ready(ServingError::BodyTooSlow(format!(
            "The body of the request came too slowly: {STEP_BYTES} bytes of it, or what was left, did not come within \
             {timeout:?}."
        )))
    }
}

/// Finds the messages in what comes of a stream of them.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; MESSAGE_PREFIX_BYTES],
    /// Bytes of a prefix that have come.
    prefixed: usize,
    /// Bytes of a message that have not.
    missing: usize,
}

impl Messages {
    /// Whether a message has begun and not ended.
    fn is_within_one(&self) -> bool {
        self.prefixed > 0 || self.missing > 0
    }

    /// Takes in what comes next. Gives whether a message begins or ends in it.
    fn read(&mut self, mut data: &[u8]) -> bool {
        let mut another = !self.is_within_one();
        while !data.is_empty() {
            let wanted = if self.missing > 0 { self.missing } else { MESSAGE_PREFIX_BYTES - self.prefixed };
            let (piece, rest) = data.split_at(wanted.min(data.len()));
            data = rest;
            if self.missing > 0 {
                self.missing -= piece.len();
            } else {
                self.prefix[self.prefixed..self.prefixed + piece.len()].copy_from_slice(piece);
                self.prefixed += piece.len();
                if let ([_, a, b, c, d], MESSAGE_PREFIX_BYTES) = (self.prefix, self.prefixed) {
                    self.prefixed = 0;
                    self.missing = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                }
            }
            another |= !self.is_within_one();
        }
        another
    }
}

#[cfg(test)]
mod tests;
