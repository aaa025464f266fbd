//! How long requests take from their arrival at the server into the queue.
//!
//! The objective counts from the queue, and callers count from when they send. On cores that batches keep busy every
//! thread waits for its turn: a request while its body is read and its image decoded, and its answer on the way back in the
//! same way. Of the second the server sees next to nothing; so what it sees of the first stands for both.

use std::time::Duration;

/// Requests that are remembered.
const REMEMBERED: usize = 256;
/// A new estimate is made after so many.
const EVERY: usize = 32;

/// What the last requests took.
#[derive(Debug)]
pub(crate) struct Way {
    taken: Vec<Duration>,
    /// Where the next one goes.
    next: usize,
}

impl Way {
    pub(crate) fn new() -> Self {
        Self { taken: Vec::with_capacity(REMEMBERED), next: 0 }
    }

    /// Takes in what one request took; now and then gives what forty-nine of fifty have taken no longer than lately.
    pub(crate) fn observe(&mut self, taken: Duration) -> Option<Duration> {
        match self.taken.get_mut(self.next) {
            Some(oldest) => *oldest = taken,
            None => self.taken.push(taken),
        }
        self.next = (self.next + 1) % REMEMBERED;
        if !self.next.is_multiple_of(EVERY) {
            return None;
        }
        let mut taken = self.taken.clone();
        let at = taken.len() * 49 / 50;
        Some(*taken.select_nth_unstable(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_nine_of_fifty_of_the_last_requests_count() {
        let mut way = Way::new();
        let mut last = None;
        for number in 1..=EVERY as u64 * 3 {
            let estimate = way.observe(Duration::from_millis(number % 10));
            assert_eq!(estimate.is_some(), number.is_multiple_of(EVERY as u64));
            last = estimate.or(last);
        }
        assert_eq!(last, Some(Duration::from_millis(9)));
        for _ in 0..REMEMBERED {
            last = way.observe(Duration::from_micros(20)).or(last);
        }
        assert_eq!(last, Some(Duration::from_micros(20)), "what was long ago is forgotten");
    }
}
