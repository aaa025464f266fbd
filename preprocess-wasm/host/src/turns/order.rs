//! Which images of the slow lane work, and which wait.
//!
//! Those that have had little time go before those that have had much, as in the multilevel feedback queue of operating systems
//! (F. J. Corbató et al., "An experimental time-sharing system", 1962): what an image has taken is the best that is known of
//! what it will take. Each level has a share of the time, and not the first one all of it. Levels are served by weight, the one
//! first that has had least for its own (A. Demers, S. Keshav and S. Shenker, "Analysis and simulation of a fair queueing
//! algorithm", 1989). Within a level the one whose header declares fewest pixels goes first, and goes on until it is done or leaves
//! the level: pixels say little of what an image takes, but nothing says more before it has taken anything.
//!
//! Were that all, no image of seconds would ever be done beside a dozen such: each would have a part of the time, and all would be
//! given up before they end. So half of the places are for elders. The image that has had most time becomes one when there is room;
//! from then on nobody interrupts it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Processor time with which an image leaves each level, and the share of each beside the others.
const LEVELS: [(Duration, f64); 5] = [
    (Duration::from_millis(100), 5.0),
    (Duration::from_millis(250), 4.0),
    (Duration::from_millis(500), 3.0),
    (Duration::from_millis(1_000), 2.0),
    (Duration::MAX, 1.0),
];
/// In seconds of processor time by weight: one at work is preempted for an image of a level that has had so much less. Less than for
/// a tick, and places would change hands at each.
const LEAD: f64 = 0.02;

/// Whether there will be memory for one that wants it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Those that wait and have less of a claim hold too little.
    None,
    /// Images that were evicted are about to give theirs back.
    Soon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Working,
    /// It has to end, for its memory is wanted.
    Evicted,
}

#[derive(Debug)]
struct Image {
    state: State,
    level: usize,
    /// Nobody interrupts it.
    elder: bool,
    /// Those that its header declares.
    pixels: u64,
    /// Processor time that it has had.
    worked: Duration,
    memory_bytes: usize,
}

#[derive(Debug, Default, Clone)]
struct Level {
    /// Seconds of processor time that its images have had, by its weight. Where none waits nothing is owed: it has had as much as
    /// others.
    served: f64,
    waiting: VecDeque<u64>,
}

/// Images by the number they were given when they came, and the levels they are in.
pub(super) struct Order {
    places: usize,
    images: BTreeMap<u64, Image>,
    levels: [Level; LEVELS.len()],
    memory_left: usize,
    next: u64,
}

impl Order {
    /// With one place there is no room for elders.
    pub(super) fn new(places: usize, memory_bytes: usize) -> Self {
        Self {
            places,
            images: BTreeMap::new(),
            levels: Default::default(),
            memory_left: memory_bytes,
            next: 0,
        }
    }

    /// An image more, of so many pixels; it works at once if there is a place.
    pub(super) fn join(&mut self, pixels: u64) -> u64 {
        let id = self.next;
        self.next += 1;
        let image = Image {
            state: State::Waiting,
            level: 0,
            elder: false,
            pixels,
            worked: Duration::ZERO,
            memory_bytes: 0,
        };
        self.images.insert(id, image);
        self.queue(id, true);
        self.fill();
        id
    }

    /// Takes an image out that had `worked` since this was told last.
    pub(super) fn leave(&mut self, id: u64, worked: Duration) {
        self.charge(id, worked);
        let Some(image) = self.images.remove(&id) else { return };
        self.memory_left += image.memory_bytes;
        if image.state == State::Waiting {
            self.levels[image.level].waiting.retain(|&waiting| waiting != id);
        }
        self.choose_elders();
        self.fill();
    }

    pub(super) fn works(&self, id: u64) -> bool {
        self.is(id, State::Working)
    }

    pub(super) fn is_evicted(&self, id: u64) -> bool {
        self.is(id, State::Evicted)
    }

    fn is(&self, id: u64, state: State) -> bool {
        self.images.get(&id).is_some_and(|image| image.state == state)
    }

    /// Takes note of the processor time that an image had since the last time. It may have to wait after that; true if it must,
    /// and another may work.
    pub(super) fn worked(&mut self, id: u64, worked: Duration) -> bool {
        self.charge(id, worked);
        let preemptible = |image: &&mut Image| image.state == State::Working && !image.elder;
        let Some(image) = self.images.get_mut(&id).filter(preemptible) else { return false };
        let level = image.level;
        let leaves = image.worked >= LEVELS[level].0;
        if leaves {
            image.level += 1;
            self.choose_elders();
            if self.images.get(&id).is_some_and(|image| image.elder) {
                return false;
            }
        }
        let served = self.levels[level].served;
        let preempted = self.waiting_elder().is_some()
            // Those of the level that it comes to were there before it.
            || self.first().is_some_and(|first| leaves || self.levels[first].served + LEAD < served);
        if preempted {
            self.preempt(id, leaves);
            self.fill();
        }
        preempted
    }

    /// Counts what an image did for itself, and for its level unless it is an elder.
    fn charge(&mut self, id: u64, worked: Duration) {
        let Some(image) = self.images.get_mut(&id).filter(|image| image.state == State::Working) else {
            return;
        };
        image.worked += worked;
        if image.elder {
            return;
        }
        let level = image.level;
        let served = self.levels[level].served + worked.as_secs_f64() / LEVELS[level].1;
        self.levels[level].served = served;
        for level in self.levels.iter_mut().filter(|level| level.waiting.is_empty()) {
            level.served = level.served.max(served);
        }
    }

    /// Takes memory for an image, if there is enough.
    pub(super) fn take(&mut self, id: u64, bytes: usize) -> bool {
        let Some(image) = self.images.get_mut(&id).filter(|_| self.memory_left >= bytes) else {
            return false;
        };
        image.memory_bytes += bytes;
        self.memory_left -= bytes;
        true
    }

    /// Makes room for what [`Order::take`] had too little for: evicts images that wait, those first whose header declares most pixels,
    /// if these are more than this one's, or as many and they have had more time; whatever they declare, if it is an elder.
    pub(super) fn make_room(&mut self, id: u64, bytes: usize) -> Room {
        self.evict_for(id, bytes.saturating_sub(self.memory_left))
    }

    /// The same where so much is wanted of what others share with this lane: what it has left is no room there.
    pub(super) fn evict_for(&mut self, id: u64, bytes: usize) -> Room {
        let Some(own) = self.images.get(&id) else { return Room::None };
        let (elder, claim) = (own.elder, (own.pixels, own.worked));
        let evicted = self.images.values().filter(|image| image.state == State::Evicted);
        let mut coming = evicted.map(|image| image.memory_bytes).sum::<usize>();
        let mut losers: Vec<_> = self
            .images
            .iter()
            .filter(|(_, image)| image.state == State::Waiting && !image.elder && image.memory_bytes > 0)
            .map(|(&other, image)| ((image.pixels, image.worked), other, image.memory_bytes))
            .filter(|(theirs, ..)| elder || *theirs > claim)
            .collect();
        losers.sort_unstable_by_key(|&(theirs, ..)| Reverse(theirs));
        let mut needed = Vec::new();
        for (_, other, held) in losers {
            if coming < bytes {
                needed.push(other);
                coming += held;
            }
        }
        if coming < bytes {
            return Room::None;
        }
        needed.into_iter().for_each(|other| self.evict(other));
        Room::Soon
    }

    pub(super) fn give_back(&mut self, id: u64, bytes: usize) {
        if let Some(image) = self.images.get_mut(&id) {
            image.memory_bytes -= bytes;
            self.memory_left += bytes;
        }
    }

    /// Gives up one that waits.
    fn evict(&mut self, id: u64) {
        if let Some(image) = self.images.get_mut(&id) {
            image.state = State::Evicted;
            self.levels[image.level].waiting.retain(|&waiting| waiting != id);
        }
    }

    /// Takes its place from one that works. It may be new to its level.
    fn preempt(&mut self, id: u64, new: bool) {
        if let Some(image) = self.images.get_mut(&id) {
            image.state = State::Waiting;
            self.queue(id, new);
        }
    }

    /// Puts one into the queue of its level: before those of more pixels, and behind those of as many if it is new there.
    fn queue(&mut self, id: u64, new: bool) {
        let Some(&Image { level, pixels, .. }) = self.images.get(&id) else { return };
        let goes_before = |other: &u64| {
            let theirs = self.images.get(other).map_or(0, |image| image.pixels);
            theirs > pixels || theirs == pixels && !new
        };
        let waiting = &self.levels[level].waiting;
        let at = waiting.iter().position(goes_before).unwrap_or(waiting.len());
        self.levels[level].waiting.insert(at, id);
    }

    /// The level whose turn it is, of those in which images wait. Of two, that for shorter work.
    fn first(&self) -> Option<usize> {
        let waiting = self.levels.iter().enumerate().filter(|(_, level)| !level.waiting.is_empty());
        waiting.min_by(|(_, a), (_, b)| a.served.total_cmp(&b.served)).map(|(level, _)| level)
    }

    /// Makes elders of those that have had most time, and more than that of the first level, while there is room for them.
    fn choose_elders(&mut self) {
        let mut elders = self.images.values().filter(|image| image.elder).count();
        while elders < self.places / 2
            && let Some((id, image)) = self
                .images
                .iter_mut()
                .filter(|(_, image)| !image.elder && image.level > 0 && image.state != State::Evicted)
                .max_by_key(|(_, image)| image.worked)
        {
            image.elder = true;
            elders += 1;
            // It is in no level's queue any more.
            self.levels[image.level].waiting.retain(|waiting| waiting != id);
        }
    }

    fn waiting_elder(&self) -> Option<u64> {
        let waits = |image: &Image| image.elder && image.state == State::Waiting;
        self.images.iter().find(|(_, image)| waits(image)).map(|(id, _)| *id)
    }

    /// Gives free places to those whose turn it is.
    fn fill(&mut self) {
        let mut working = self.images.values().filter(|image| image.state == State::Working).count();
        while working < self.places
            && let Some(id) = self.waiting_elder().or_else(|| {
                let level = self.first()?;
                self.levels[level].waiting.pop_front()
            })
            && let Some(image) = self.images.get_mut(&id)
        {
            image.state = State::Working;
            working += 1;
        }
    }
}

#[cfg(test)]
mod tests;
