//! Answers that nobody reads: what waits to be sent is held, and must not be held for ever.
//!
//! An answer is handed to its connection in pieces of [`PIECE_BYTES`], the next one when the one before is on its way.
//! A piece that is not within `--answer-timeout` is given up, in one of two ways:
//!
//! - The answer ends with an error: over HTTP/2 its stream is reset, and others on the connection go on. That is possible
//!   while the transport asks for more of it ([`Sending::poll_taken`]), so the end of a large answer is kept back as well.
//! - It does not ask while the client's window is used up or its socket is full, nor for what follows a small answer.
//!   What is still there a quarter of the time later is ended with its whole connection ([`Unread::watch`]).
//!
//! Whether a piece is on its way is told by its drop: the transport (h2, and hyper for HTTP/1.1) drops what it has written.

use crate::scheduler::lock;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use prometheus::IntCounter;
use prometheus::core::Collector;
use service_kit::ConnectionHandle;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What has to be read in each `--answer-timeout`: 17 KB/s at its default. Smaller pieces would cost each answer a turn of
/// its connection more.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// An answer up to this is written without waiting: it fits into the window that HTTP/2's clients begin with.
const SMALL_BYTES: usize = (64 << 10) - 1;

/// All pieces that wait to be sent, oldest first; clones share them.
#[derive(Clone)]
pub(crate) struct Unread {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None`: they wait without end, and are not noted.
    timeout: Option<Duration>,
    pieces: Mutex<Pieces>,
    given_up: IntCounter,
}

#[derive(Default)]
struct Pieces {
    next: u64,
    waiting: BTreeMap<u64, (Instant, ConnectionHandle)>,
}

impl Unread {
    /// None yet. Pieces have `timeout` to be read.
    pub(crate) fn new(timeout: Option<Duration>) -> Result<Self, prometheus::Error> {
        let given_up = IntCounter::new(
            "convoy_answers_given_up_total",
            "Answers that were given up, alone or with their connection, because they were not read",
        )?;
        Ok(Self { shared: Arc::new(Shared { timeout, pieces: Mutex::default(), given_up }) })
    }

    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.shared.given_up.clone())
    }

    /// Of an answer on `connection`. With `each` nothing follows a piece that waits, however small it is: an answer that
    /// never ends by itself is asked for more as long as it can be.
    pub(super) fn sending(&self, connection: Option<ConnectionHandle>, each: bool) -> Option<Sending> {
        let unread = self.shared.timeout.map(|_| self.clone())?;
        let allowed = if each { 0 } else { SMALL_BYTES };
        Some(Sending { unread, connection, allowed, waiting: Arc::default(), timer: None })
    }

    /// Ends the connections whose answers could not be ended alone. Never returns.
    pub(crate) async fn watch(&self) -> Infallible {
        let Some(timeout) = self.shared.timeout else { return std::future::pending().await };
        let patience = timeout + timeout / 4;
        loop {
            sleep_until(self.end_late(Instant::now(), patience)).await;
        }
    }

    /// Ends the connections of pieces that wait for `patience` or longer; gives when to look again.
    fn end_late(&self, now: Instant, patience: Duration) -> Instant {
        let late: Vec<_> = {
            let mut pieces = lock(&self.shared.pieces);
            let is_late = |since: Instant| since + patience <= now;
            let mut late = Vec::new();
            while let Some(first) = pieces.waiting.first_entry().filter(|first| is_late(first.get().0)) {
                late.push(first.remove().1);
            }
            late
        };
        for connection in late {
            if connection.reset() {
                self.shared.given_up.inc();
                tracing::debug!(peer = %connection.peer(), "A connection was ended: an answer on it is not read.");
            }
        }
        let oldest = lock(&self.shared.pieces).waiting.first_key_value().map(|(_, (since, _))| *since);
        oldest.unwrap_or(now) + patience
    }
}

/// What of one answer waits to be sent.
pub(super) struct Sending {
    unread: Unread,
    connection: Option<ConnectionHandle>,
    /// More follows while this many bytes wait.
    allowed: usize,
    waiting: Arc<Waiting>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    body: AtomicWaker,
}

/// Notes, until it is dropped, that a piece waits.
pub(super) struct Piece {
    unread: Unread,
    number: Option<u64>,
    bytes: usize,
    waiting: Arc<Waiting>,
}

impl Sending {
    /// Notes that `data` is handed over.
    pub(super) fn piece(&self, data: &Bytes) -> Piece {
        let number = self.connection.as_ref().map(|connection| {
            let mut pieces = lock(&self.unread.shared.pieces);
            let number = pieces.next;
            pieces.next += 1;
            pieces.waiting.insert(number, (Instant::now(), connection.clone()));
            number
        });
        self.waiting.bytes.fetch_add(data.len(), Ordering::AcqRel);
        Piece { unread: self.unread.clone(), number, bytes: data.len(), waiting: Arc::clone(&self.waiting) }
    }

    /// Whether more is to wait until what was handed over is on its way.
    pub(super) fn must_wait(&self) -> bool {
        self.waiting.bytes.load(Ordering::Acquire) > self.allowed
    }

    /// Ready when more may follow; an error when that takes too long.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotRead>> {
        if self.must_wait() {
            self.waiting.body.register(cx.waker());
        }
        // It may have gone just before.
        if !self.must_wait() {
            self.timer = None;
            return Poll::Ready(Ok(()));
        }
        let timeout = self.unread.shared.timeout.unwrap_or(Duration::MAX);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(timer.as_mut().poll(cx));
        self.unread.shared.given_up.inc();
        tracing::debug!("An answer was given up: it is not read.");
        Poll::Ready(Err(NotRead { timeout }))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.unread.shared.pieces).waiting.remove(&number);
        }
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.waiting.body.wake();
    }
}

/// Why an answer ended early. The client who reads nothing does not read this either.
#[derive(Debug, thiserror::Error)]
#[error("The answer was given up: its client read nothing of it within {timeout:?}.")]
pub(super) struct NotRead {
    timeout: Duration,
}

#[cfg(test)]
mod tests;
