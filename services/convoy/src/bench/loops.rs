//! The two ways to ask: closed loops, whose callers each wait for their answer, and open ones, whose callers do not.

use super::client::{Client, Outcome};
use super::statistics::{Arrivals, Latency};
use bytes::Bytes;
use serde::Serialize;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// Requests of an open loop that may be open at once; the next ones are counted as failed.
const MOST_OPEN: usize = 20_000;
/// How long an open loop waits for its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What a loop saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Seen {
    /// Requests sent a second.
    pub(super) offered_per_s: f64,
    /// Answers a second.
    pub(super) answered_per_s: f64,
    /// Answers within the objective, a second.
    pub(super) in_time_per_s: f64,
    /// Requests by what became of them.
    pub(super) answered: usize,
    pub(super) late: usize,
    /// Those of the late ones that took the server itself longer than the objective, where its answers were read.
    pub(super) late_at_server: usize,
    pub(super) refused: usize,
    pub(super) expired: usize,
    pub(super) failed: usize,
    /// Latency of what was answered, from when it was to be sent.
    pub(super) latency: Latency,
    /// How long refusals took.
    pub(super) refusal: Latency,
}

/// What is asked, and what is a good answer.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) client: Client,
    /// Sent in turn.
    pub(super) messages: Rc<[Bytes]>,
    pub(super) objective: Duration,
    /// Whether answers are read, for what the server says of its time.
    pub(super) read: bool,
}

#[derive(Default)]
struct Record {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    late_at_server: usize,
    expired: usize,
    failed: usize,
}

impl Record {
    fn note(&mut self, outcome: Outcome, latency: Duration, objective: Duration) {
        match outcome {
            Outcome::Answered(server) => {
                self.late_at_server += usize::from(server.is_some_and(|server| server > objective));
                self.answered.push(latency);
            }
            Outcome::Refused => self.refused.push(latency),
            Outcome::Expired => self.expired += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
    }

    fn seen(&mut self, objective: Duration, took: Duration) -> Seen {
        let seconds = took.as_secs_f64();
        let late = self.answered.iter().filter(|&&latency| latency > objective).count();
        let answered = self.answered.len();
        let sent = answered + self.refused.len() + self.expired + self.failed;
        Seen {
            offered_per_s: sent as f64 / seconds,
            answered_per_s: answered as f64 / seconds,
            in_time_per_s: (answered - late) as f64 / seconds,
            answered,
            late,
            late_at_server: self.late_at_server,
            refused: self.refused.len(),
            expired: self.expired,
            failed: self.failed,
            latency: Latency::of(std::mem::take(&mut self.answered)),
            refusal: Latency::of(std::mem::take(&mut self.refused)),
        }
    }
}

/// `callers` that each send their next request when they have their answer, for `duration` after a tenth of it that is
/// not counted.
pub(super) async fn closed(ask: &Ask, callers: usize, duration: Duration) -> Seen {
    let record = Rc::new(RefCell::new(Record::default()));
    let counted_from = Instant::now() + duration / 10;
    let until = counted_from + duration;
    let local = LocalSet::new();
    for caller in 0..callers {
        let (ask, record) = (ask.clone(), Rc::clone(&record));
        local.spawn_local(async move {
            let mut number = caller;
            while Instant::now() < until {
                let sent = Instant::now();
                let message = ask.messages[number % ask.messages.len()].clone();
                let outcome = ask.client.ask(caller, message, ask.read).await;
                let now = Instant::now();
                // By when they end, so that as much is cut off at the end as is let in at the beginning.
                if now >= counted_from && now < until {
                    record.borrow_mut().note(outcome, now - sent, ask.objective);
                }
                if outcome == Outcome::Failed(2) {
                    // A broken connection would be asked a million times a second.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                number += 1;
            }
        });
    }
    local.await;
    record.borrow_mut().seen(ask.objective, duration)
}

/// Requests that arrive at `rate` a second on average (Poisson), whatever becomes of those before them, for a tenth of
/// `duration` that does not count, for `duration`, and for a last tenth: those count that are due between, so that the
/// queue is neither empty when it begins nor emptied without others coming when it ends.
///
/// # Errors
/// When the system has no thread for it.
pub(super) async fn open(ask: &Ask, rate: f64, duration: Duration, seed: u64) -> io::Result<Seen> {
    let start = Instant::now();
    let counted = start + duration / 10..start + duration + duration / 10;
    let mut arrivals = arrivals(Arrivals::new(rate, seed), start, counted.end + duration / 10)?;
    let record = Rc::new(RefCell::new(Record::default()));
    let local = LocalSet::new();
    let generate = async {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some((number, due_at)) = arrivals.recv().await {
            let counts = counted.contains(&due_at);
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= MOST_OPEN {
                record.borrow_mut().failed += usize::from(counts);
                continue;
            }
            let (ask, record) = (ask.clone(), Rc::clone(&record));
            tasks.spawn_local(async move {
                let message = ask.messages[number % ask.messages.len()].clone();
                let outcome = ask.client.ask(number, message, ask.read).await;
                if counts {
                    record.borrow_mut().note(outcome, due_at.elapsed(), ask.objective);
                }
            });
        }
        let _ =
            tokio::time::timeout(LAST_ANSWERS, async { while tasks.join_next().await.is_some() {} }).await;
        record.borrow_mut().failed += tasks.len();
    };
    local.run_until(generate).await;
    Ok(record.borrow_mut().seen(ask.objective, duration))
}

/// Gives each instant, with its number from 0, when it has come: from the first gap after `start` until `end`. A thread of
/// its own waits for them: tokio's timers tick in milliseconds, and half of one on average would be counted as the server's.
fn arrivals(gaps: Arrivals, start: Instant, end: Instant) -> io::Result<mpsc::Receiver<(usize, Instant)>> {
    let (arrived, arrivals) = mpsc::channel(MOST_OPEN);
    let wait = move || {
        let instants = gaps.scan(start, |due, gap| {
            *due += gap;
            Some(*due)
        });
        for (number, due) in instants.take_while(|due| *due < end).enumerate() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if arrived.blocking_send((number, due)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("bench-arrivals".to_owned()).spawn(wait)?;
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_seen_adds_up() {
        let objective = Duration::from_millis(100);
        let ms = Duration::from_millis;
        let mut record = Record::default();
        record.note(Outcome::Answered(Some(ms(40))), ms(50), objective);
        record.note(Outcome::Answered(Some(ms(90))), ms(110), objective);
        record.note(Outcome::Answered(Some(ms(130))), ms(150), objective);
        record.note(Outcome::Refused, ms(1), objective);
        record.note(Outcome::Expired, ms(100), objective);
        record.note(Outcome::Failed(13), ms(1), objective);
        let seen = record.seen(objective, Duration::from_secs(2));
        assert_eq!((seen.answered, seen.late, seen.late_at_server), (3, 2, 1));
        assert_eq!((seen.refused, seen.expired, seen.failed), (1, 1, 1));
        assert_eq!((seen.offered_per_s, seen.answered_per_s, seen.in_time_per_s), (3.0, 1.5, 0.5));
        assert_eq!((seen.latency.p50_ms, seen.refusal.p50_ms), (110.0, 1.0));
    }

    #[test]
    fn arrivals_come_when_they_are_due_and_not_before() {
        let start = Instant::now();
        let end = start + Duration::from_millis(50);
        let mut arrivals = arrivals(Arrivals::new(400.0, 3), start, end).unwrap();
        let mut due = start;
        let mut expected = Arrivals::new(400.0, 3);
        let mut count = 0;
        while let Some((number, at)) = arrivals.blocking_recv() {
            due += expected.next().unwrap();
            assert_eq!((number, at), (count, due));
            assert!(Instant::now() >= at && at < end);
            count += 1;
        }
        assert!(due + expected.next().unwrap() >= end, "none is left out");
        assert!(count > 0);
    }
}
