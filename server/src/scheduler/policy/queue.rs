//! The queue: requests in the order in which they are to run, in small blocks.
//!
//! Most requests go to the end and leave from the front, which costs the same at any length. One that goes into the
//! middle moves the rest of its block, and finding its place costs a look at each block: with ten thousand waiting,
//! that is less than a microsecond.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests in a block at most.
const BLOCK: usize = 128;

/// A request in the queue, and what the policy keeps of it.
#[derive(Debug)]
pub(super) struct Entry<J> {
    /// What it is sorted by: earlier is more urgent.
    pub(super) urgency: Duration,
    /// When its answer is worth nothing any more; [`Duration::MAX`]: never.
    pub(super) deadline: Duration,
    /// When it must have been taken to be run.
    pub(super) start_by: Duration,
    /// When it arrived.
    pub(super) arrived: Duration,
    pub(super) rows: usize,
    /// Its priority, from 1.
    pub(super) level: u32,
    /// It found an instance idle and has no deadline of its own: it is run whatever is predicted.
    pub(super) promised: bool,
    pub(super) job: J,
}

/// Where an entry is: its block, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize, usize);

#[derive(Debug)]
struct Block<J> {
    entries: VecDeque<Entry<J>>,
    rows: usize,
    /// No deadline in here is earlier. Not kept exact when entries leave.
    earliest: Duration,
    /// No deadline in here is later.
    latest: Duration,
}

impl<J> Block<J> {
    fn of(entries: VecDeque<Entry<J>>) -> Self {
        let rows = entries.iter().map(|entry| entry.rows).sum();
        let earliest = entries.iter().map(|entry| entry.deadline).min().unwrap_or(Duration::MAX);
        let latest = entries.iter().map(|entry| entry.deadline).max().unwrap_or(Duration::ZERO);
        Self { entries, rows, earliest, latest }
    }

    /// The most urgent; a block in the queue is never empty.
    fn first(&self) -> Duration {
        self.entries.front().map_or(Duration::MAX, |entry| entry.urgency)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Queue<J> {
    /// None is empty.
    blocks: VecDeque<Block<J>>,
    len: usize,
    rows: usize,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Self {
        Self { blocks: VecDeque::new(), len: 0, rows: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn front(&self) -> Option<&Entry<J>> {
        self.blocks.front()?.entries.front()
    }

    /// Puts an entry behind those that are as urgent as it is.
    pub(super) fn insert(&mut self, entry: Entry<J>) {
        self.len += 1;
        self.rows += entry.rows;
        let at = match self.blocks.back() {
            None => {
                self.blocks.push_back(Block::of(VecDeque::from([entry])));
                return;
            }
            Some(last) if last.first() <= entry.urgency => self.blocks.len() - 1,
            Some(_) => self.block_of(entry.urgency),
        };
        let block = &mut self.blocks[at];
        block.rows += entry.rows;
        block.earliest = block.earliest.min(entry.deadline);
        block.latest = block.latest.max(entry.deadline);
        match block.entries.back() {
            Some(last) if last.urgency > entry.urgency => {
                let place = block.entries.partition_point(|other| other.urgency <= entry.urgency);
                block.entries.insert(place, entry);
            }
            _ => block.entries.push_back(entry),
        }
        if block.entries.len() > BLOCK {
            let second = Block::of(block.entries.split_off(BLOCK / 2));
            let entries = std::mem::take(&mut block.entries);
            *block = Block::of(entries);
            self.blocks.insert(at + 1, second);
        }
    }

    /// Rows of those that would run before a request of this urgency.
    pub(super) fn rows_before(&self, urgency: Duration) -> usize {
        if self.blocks.back().is_some_and(|block| block.entries.back().is_some_and(|e| e.urgency <= urgency))
        {
            return self.rows;
        }
        let at = self.block_of(urgency);
        let before: usize = self.blocks.iter().take(at).map(|block| block.rows).sum();
        let within = self.blocks.get(at).map_or(0, |block| {
            block.entries.iter().take_while(|e| e.urgency <= urgency).map(|e| e.rows).sum::<usize>()
        });
        before + within
    }

    /// Rows at the front whose deadlines are all before `limit`.
    pub(super) fn rows_due_before(&self, limit: Duration) -> usize {
        let mut rows = 0;
        for block in &self.blocks {
            if block.latest < limit {
                rows += block.rows;
                continue;
            }
            let due = block.entries.iter().take_while(|entry| entry.deadline < limit);
            return rows + due.map(|entry| entry.rows).sum::<usize>();
        }
        rows
    }

    /// Whether a request behind those as urgent as `urgency` is `broken`. Both closures are told the rows up to the
    /// request's end, itself included. Where `late` does not hold, it must not hold for a later deadline or for fewer
    /// rows: nothing there is looked at closer.
    pub(super) fn any_behind(
        &self,
        urgency: Duration,
        late: impl Fn(Duration, usize) -> bool,
        broken: impl Fn(&Entry<J>, usize) -> bool,
    ) -> bool {
        let mut until = self.rows;
        for block in self.blocks.iter().rev() {
            if block.entries.back().is_none_or(|last| last.urgency <= urgency) {
                return false;
            }
            if late(block.earliest, until) {
                let mut within = until;
                for entry in block.entries.iter().rev() {
                    if entry.urgency <= urgency {
                        return false;
                    }
                    if broken(entry, within) {
                        return true;
                    }
                    within -= entry.rows;
                }
            }
            until -= block.rows;
        }
        false
    }

    /// Every entry, the most urgent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Position, &Entry<J>)> {
        self.blocks.iter().enumerate().flat_map(|(at, block)| {
            block.entries.iter().enumerate().map(move |(place, entry)| (Position(at, place), entry))
        })
    }

    /// The entry at a position.
    pub(super) fn at(&self, position: Position) -> Option<&Entry<J>> {
        self.blocks.get(position.0)?.entries.get(position.1)
    }

    /// Takes an entry out. Positions behind it are void, those before it are not.
    pub(super) fn remove(&mut self, position: Position) -> Option<Entry<J>> {
        let Position(at, place) = position;
        let block = self.blocks.get_mut(at)?;
        let entry = block.entries.remove(place)?;
        block.rows -= entry.rows;
        self.rows -= entry.rows;
        self.len -= 1;
        if block.entries.is_empty() {
            self.blocks.remove(at);
        }
        Some(entry)
    }

    /// Takes the most urgent out.
    pub(super) fn pop_front(&mut self) -> Option<Entry<J>> {
        self.remove(Position(0, 0))
    }

    /// Takes out all for which `over` has something, with what it has.
    pub(super) fn extract<T>(&mut self, over: impl Fn(&Entry<J>) -> Option<T>) -> Vec<(Entry<J>, T)> {
        let mut found: Vec<(Position, T)> =
            self.iter().filter_map(|(position, entry)| Some((position, over(entry)?))).collect();
        found.sort_unstable_by_key(|&(position, _)| Reverse(position));
        found.into_iter().filter_map(|(position, what)| Some((self.remove(position)?, what))).collect()
    }

    /// The block where an entry of this urgency belongs: the last that does not begin behind it.
    fn block_of(&self, urgency: Duration) -> usize {
        self.blocks.partition_point(|block| block.first() <= urgency).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(urgency: u64, deadline: u64, rows: usize, job: usize) -> Entry<usize> {
        let (urgency, deadline) = (Duration::from_millis(urgency), Duration::from_millis(deadline));
        let (start_by, arrived) = (Duration::MAX, Duration::ZERO);
        Entry { urgency, deadline, start_by, arrived, rows, level: 1, promised: false, job }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The queue is a sorted list, whatever is put in and taken out.
        #[test]
        fn it_is_a_sorted_list(steps in proptest::collection::vec((0_u64..60, 0_u64..90, 1_usize..4, 0_usize..6), 1..900)) {
            let mut queue = Queue::new();
            let mut model: Vec<(u64, usize, u64, usize)> = Vec::new();
            for (id, &(urgency, deadline, rows, remove)) in steps.iter().enumerate() {
                if remove == 0 && !model.is_empty() {
                    let at = id % model.len();
                    let position = queue.iter().nth(at).map(|(position, _)| position).expect("as many as the model");
                    prop_assert_eq!(queue.remove(position).map(|e| e.job), Some(model.remove(at).1));
                    continue;
                }
                let before: usize = model.iter().filter(|m| m.0 <= urgency).map(|m| m.3).sum();
                prop_assert_eq!(queue.rows_before(Duration::from_millis(urgency)), before);
                queue.insert(entry(urgency, deadline, rows, id));
                let at = model.partition_point(|m| m.0 <= urgency);
                model.insert(at, (urgency, id, deadline, rows));
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.rows(), model.iter().map(|m| m.3).sum::<usize>());
            prop_assert_eq!(queue.iter().map(|(_, e)| e.job).collect::<Vec<_>>(), model.iter().map(|m| m.1).collect::<Vec<_>>());
            for limit in [0, 30, 95] {
                let due: usize = model.iter().take_while(|m| m.2 < limit).map(|m| m.3).sum();
                prop_assert_eq!(queue.rows_due_before(Duration::from_millis(limit)), due);
            }
            // One row a millisecond: who ends after its deadline?
            let late = |deadline: Duration, rows: usize| Duration::from_millis(rows as u64) > deadline;
            for urgency in [0, 20, 59, 60] {
                let mut rows = 0;
                let expected = model.iter().any(|m| {
                    rows += m.3;
                    m.0 > urgency && rows as u64 > m.2
                });
                prop_assert_eq!(queue.any_behind(Duration::from_millis(urgency), late, |e, rows| late(e.deadline, rows)), expected);
            }
            let even = queue.extract(|e| (e.job % 2 == 0).then_some(()));
            prop_assert!(even.iter().all(|(e, ())| e.job % 2 == 0));
            prop_assert_eq!(queue.iter().map(|(_, e)| e.job).collect::<Vec<_>>(),
                model.iter().map(|m| m.1).filter(|job| job % 2 == 1).collect::<Vec<_>>());
            while queue.pop_front().is_some() {}
            prop_assert_eq!((queue.len(), queue.rows()), (0, 0));
        }
    }
}
