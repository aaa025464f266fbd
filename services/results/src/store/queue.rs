//! A bounded queue from async code to OS threads: never waits to enqueue, and can be closed with work in it.

use super::error::StoreError;
use prometheus::IntGauge;
use std::sync::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// The sending end. What was accepted before [`Queue::close`] is still received.
pub(super) struct Queue<J> {
    sender: RwLock<Option<SyncSender<J>>>,
    length: IntGauge,
}

/// The receiving end.
pub(super) struct Jobs<J> {
    receiver: Receiver<J>,
    length: IntGauge,
}

impl<J> Queue<J> {
    /// A queue of at most `capacity` jobs, and its receiving end. `length` shows how many wait.
    pub(super) fn bounded(capacity: usize, length: &IntGauge) -> (Self, Jobs<J>) {
        let (sender, receiver) = sync_channel(capacity);
        let queue = Self { sender: RwLock::new(Some(sender)), length: length.clone() };
        (queue, Jobs { receiver, length: length.clone() })
    }

    /// Enqueues `job`, or refuses it at once.
    pub(super) fn submit(&self, job: J) -> Result<(), StoreError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else { return Err(StoreError::Closed) };
        // Before it is sent: the receiver may take it at once.
        self.length.inc();
        sender.try_send(job).map_err(|error| {
            self.length.dec();
            match error {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => StoreError::Closed,
            }
        })
    }

    /// Refuses all that comes from now on; the receiver ends once it has taken what is queued.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl<J> Jobs<J> {
    /// The next job; waits for it. An error when the queue is closed and empty.
    pub(super) fn next(&self) -> Result<J, RecvError> {
        self.receiver.recv().inspect(|_| self.length.dec())
    }

    /// The next job; waits for it no longer than `patience`.
    pub(super) fn next_within(&self, patience: Duration) -> Result<J, RecvTimeoutError> {
        self.receiver.recv_timeout(patience).inspect(|_| self.length.dec())
    }

    /// The next job if one is queued.
    pub(super) fn try_next(&self) -> Result<J, TryRecvError> {
        self.receiver.try_recv().inspect(|_| self.length.dec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_is_drained() {
        let length = IntGauge::new("length", "of the queue").unwrap();
        let (queue, jobs) = Queue::bounded(2, &length);
        assert_eq!(queue.submit(1), Ok(()));
        assert_eq!(queue.submit(2), Ok(()));
        assert_eq!(queue.submit(3), Err(StoreError::Overloaded));
        assert_eq!(length.get(), 2);
        queue.close();
        assert_eq!(queue.submit(4), Err(StoreError::Closed));
        assert_eq!((jobs.next(), jobs.try_next()), (Ok(1), Ok(2)));
        assert_eq!(jobs.next_within(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
        assert!(jobs.next().is_err());
        assert_eq!(length.get(), 0);
    }
}
