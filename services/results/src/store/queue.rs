//! A bounded queue from async code to OS threads: never waits to enqueue, and can be closed with work in it.

use super::error::StoreError;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{PoisonError, RwLock};

/// The sending end. What was accepted before [`Queue::close`] is still received.
pub(super) struct Queue<J> {
    sender: RwLock<Option<SyncSender<J>>>,
}

impl<J> Queue<J> {
    /// A queue of at most `capacity` jobs, and its receiving end.
    pub(super) fn bounded(capacity: usize) -> (Self, Receiver<J>) {
        let (sender, receiver) = sync_channel(capacity);
        (Self { sender: RwLock::new(Some(sender)) }, receiver)
    }

    /// Enqueues `job`, or refuses it at once.
    pub(super) fn submit(&self, job: J) -> Result<(), StoreError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else { return Err(StoreError::Closed) };
        sender.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    /// Refuses all that comes from now on; the receiver ends once it has taken what is queued.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_is_drained() {
        let (queue, jobs) = Queue::bounded(2);
        assert_eq!(queue.submit(1), Ok(()));
        assert_eq!(queue.submit(2), Ok(()));
        assert_eq!(queue.submit(3), Err(StoreError::Overloaded));
        queue.close();
        assert_eq!(queue.submit(4), Err(StoreError::Closed));
        assert_eq!(jobs.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
