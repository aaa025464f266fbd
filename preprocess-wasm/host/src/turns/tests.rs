#![allow(clippy::unwrap_used)]

use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::watch::thread_time;

/// Has the processor for so long.
fn work(time: Duration) {
    let start = thread_time();
    while thread_time() < start + time {
        std::hint::spin_loop();
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const NEVER: fn(Instant) -> Option<Interrupted> = |_| None;

#[test]
fn one_stops_for_another_and_goes_on_later() {
    let turns = Arc::new(Turns::new(1, 1 << 20));
    let long = turns.join(1, HOUR, None);
    long.wait(NEVER).unwrap();
    let (said, hears) = channel();
    let other = {
        let (turns, said) = (Arc::clone(&turns), said.clone());
        thread::spawn(move || {
            let turn = turns.join(1, HOUR, None);
            said.send("waits").unwrap();
            turn.wait(NEVER).unwrap();
            said.send("works").unwrap();
        })
    };
    assert_eq!(hears.recv().unwrap(), "waits");
    // It has its place until it leaves the first level.
    while !long.is_preempted() {
        work(Duration::from_millis(5));
    }
    let waited = long.wait(NEVER).unwrap();
    said.send("goes on").unwrap();
    assert!(waited > Duration::ZERO);
    assert_eq!((hears.recv().unwrap(), hears.recv().unwrap()), ("works", "goes on"));
    other.join().unwrap();
}

#[test]
fn who_waits_hears_of_a_reason_to_stop() {
    let turns = Arc::new(Turns::new(1, 1 << 20));
    let first = turns.join(1, HOUR, None);
    first.wait(NEVER).unwrap();
    let second = turns.join(1, HOUR, None);
    assert_eq!(second.wait(|_| Some(Interrupted::Abandoned)).unwrap_err(), Interrupted::Abandoned);
    let without_patience = turns.join(1, Duration::ZERO, None);
    assert_eq!(without_patience.wait(NEVER).unwrap_err(), Interrupted::Late);
    drop(first);
    assert!(second.wait(|_| Some(Interrupted::Abandoned)).is_ok(), "there is a place for it");
}

#[test]
fn memory_comes_from_one_that_waits_whichever_has_too_little() {
    struct Meter(Mutex<usize>);
    impl MemoryMeter for Meter {
        fn grow(&self, bytes: usize) -> bool {
            let mut left = self.0.lock().unwrap();
            let taken = *left >= bytes;
            *left -= if taken { bytes } else { 0 };
            taken
        }
        fn shrink(&self, bytes: usize) {
            *self.0.lock().unwrap() += bytes;
        }
    }
    for (own, shared) in [(100, 150), (150, 100)] {
        let meter = Arc::new(Meter(Mutex::new(shared)));
        let turns = Arc::new(Turns::new(1, own));
        let bomb = turns.join(1, HOUR, Some(Arc::<Meter>::clone(&meter)));
        bomb.wait(NEVER).unwrap();
        assert!(bomb.grow(90));
        let (ready, is_ready) = channel();
        let other = {
            let (turns, meter) = (Arc::clone(&turns), Arc::clone(&meter));
            thread::spawn(move || {
                let turn = turns.join(1, HOUR, Some(meter));
                ready.send(()).unwrap();
                turn.wait(NEVER).unwrap();
                // The bomb has to go first.
                let grown = turn.grow(80);
                turn.shrink(80);
                (grown, turn.grow(301))
            })
        };
        is_ready.recv().unwrap();
        while !bomb.is_preempted() {
            work(Duration::from_millis(5));
        }
        assert_eq!(bomb.wait(NEVER).unwrap_err(), Interrupted::Evicted);
        bomb.shrink(90);
        drop(bomb);
        assert_eq!(other.join().unwrap(), (true, false));
        assert_eq!(*meter.0.lock().unwrap(), shared);
    }
}
