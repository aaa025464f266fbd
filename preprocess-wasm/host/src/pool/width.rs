//! How many threads of a pool are at work at once.
//!
//! Threads of a low priority still take their share of every core they run on. A model that computes on all cores then has
//! none to itself, and each of its runs ends when its slowest part does. So where threads that stand back get little of their
//! cores, which shows that somebody else wants them, half of the threads rest until there is room again. On a machine that has
//! nothing else to do all of them work.

use std::time::Duration;

/// Of the time that tasks took, the part that their threads had a core: below it, others want the cores, and half rest.
const CONTENDED: f64 = 0.4;
/// The same above which all work again. It is far from the other one, for those who still work get more when others rest.
const UNCONTENDED: f64 = 0.75;
/// Tasks count that took so much together, and those before them less and less.
const SPAN: Duration = Duration::from_secs(1);

/// How many threads of so many.
#[derive(Debug)]
pub(super) struct Width {
    threads: usize,
    yields: bool,
    half: bool,
    worked: Duration,
    took: Duration,
}

impl Width {
    /// All of them; or, if they yield, all where the machine has nothing else to do and else half.
    pub(super) fn new(threads: usize, yields: bool) -> Self {
        Self { threads, yields, half: false, worked: Duration::ZERO, took: Duration::ZERO }
    }

    pub(super) fn at_once(&self) -> usize {
        if self.half { self.threads.div_ceil(2) } else { self.threads }
    }

    /// Takes note of a task: the processor time that its thread had, and the time it took by the clock. True if more threads
    /// may work now than before.
    pub(super) fn note(&mut self, worked: Duration, took: Duration) -> bool {
        if !self.yields {
            return false;
        }
        self.worked += worked;
        self.took += took;
        if self.took < SPAN {
            return false;
        }
        let share = self.worked.as_secs_f64() / self.took.as_secs_f64();
        (self.worked, self.took) = (self.worked / 2, self.took / 2);
        let half = if self.half { share < UNCONTENDED } else { share < CONTENDED };
        let more = self.half && !half;
        if half != self.half {
            // What was seen with another number of threads says nothing of this one.
            (self.half, self.worked, self.took) = (half, Duration::ZERO, Duration::ZERO);
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes tasks of a second by the clock, with this part of a core each; gives what each note gave.
    fn seconds(width: &mut Width, share: f64, count: usize) -> Vec<bool> {
        (0..count).map(|_| width.note(SPAN.mul_f64(share), SPAN)).collect()
    }

    #[test]
    fn half_rest_where_others_want_the_cores_until_there_is_room() {
        let mut width = Width::new(4, true);
        assert_eq!(width.at_once(), 4);
        seconds(&mut width, 0.2, 1);
        assert_eq!(width.at_once(), 2);
        // Those who go on get more, which is no sign of room.
        seconds(&mut width, 0.6, 10);
        assert_eq!(width.at_once(), 2);
        let noted = seconds(&mut width, 0.95, 3);
        assert_eq!(width.at_once(), 4);
        assert_eq!(noted.iter().filter(|more| **more).count(), 1, "the others are told once");
    }

    #[test]
    fn short_tasks_count_together() {
        let mut width = Width::new(2, true);
        for _ in 0..99 {
            width.note(Duration::from_millis(1), Duration::from_millis(10));
            assert_eq!(width.at_once(), 2);
        }
        width.note(Duration::from_millis(1), Duration::from_millis(10));
        assert_eq!(width.at_once(), 1);
    }

    #[test]
    fn one_thread_always_works_and_others_never_rest() {
        let mut one = Width::new(1, true);
        seconds(&mut one, 0.01, 5);
        assert_eq!(one.at_once(), 1);
        let mut first = Width::new(2, false);
        seconds(&mut first, 0.01, 5);
        assert_eq!(first.at_once(), 2);
    }
}
