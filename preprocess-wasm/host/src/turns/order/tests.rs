#![allow(clippy::unwrap_used)]

use super::*;

const TICK: Duration = Duration::from_millis(5);
const MIB: usize = 1 << 20;

/// Images that need so many ticks of work each, on places that have a core each.
struct Machine {
    order: Order,
    left: BTreeMap<u64, u32>,
    /// When each was done, in ticks.
    done: BTreeMap<u64, u32>,
    now: u32,
}

impl Machine {
    fn new(places: usize) -> Self {
        Self { order: Order::new(places, 1024 * MIB), left: BTreeMap::new(), done: BTreeMap::new(), now: 0 }
    }

    fn comes(&mut self, ticks: u32) -> u64 {
        let id = self.order.join(1);
        self.left.insert(id, ticks);
        id
    }

    fn tick(&mut self) {
        let working: Vec<u64> = self.left.keys().copied().filter(|id| self.order.works(*id)).collect();
        self.now += 1;
        for id in working {
            let left = self.left.get_mut(&id).unwrap();
            *left -= 1;
            if *left == 0 {
                self.left.remove(&id);
                self.order.leave(id, TICK);
                self.done.insert(id, self.now);
            } else {
                self.order.worked(id, TICK);
            }
            let at_work = self.left.keys().filter(|id| self.order.works(**id)).count();
            assert_eq!(at_work, self.left.len().min(self.order.places), "at work");
        }
    }

    /// Goes on until this image is done; gives the ticks that it took from now on.
    fn until_done(&mut self, id: u64) -> u32 {
        let start = self.now;
        while !self.done.contains_key(&id) {
            self.tick();
        }
        self.now - start
    }
}

#[test]
fn a_shorter_image_goes_before_those_that_have_had_more_time() {
    for places in [1, 2, 4] {
        let mut machine = Machine::new(places);
        let bombs: Vec<u64> = (0..12).map(|_| machine.comes(100_000)).collect();
        // Until all have had a second each.
        while !bombs.iter().all(|bomb| machine.left[bomb] <= 99_800) {
            machine.tick();
        }
        // It takes 200 ms, and has at least four fifths of the time; and it waits for the lead.
        let good = machine.comes(40);
        let took = machine.until_done(good);
        assert!(took <= 40 * 5 / 4 + 5, "{took} ticks with {places}");
    }
}

#[test]
fn one_that_takes_seconds_gets_on_however_many_shorter_ones_come() {
    for places in [1, 2] {
        let mut machine = Machine::new(places);
        let long = machine.comes(400);
        let mut ticks = 0;
        while !machine.done.contains_key(&long) {
            // More than there are places for.
            while machine.left.len() < places + 3 {
                machine.comes(10);
            }
            machine.tick();
            ticks += 1;
        }
        // Its last level has a sixth of the time beside the first one alone.
        assert!((400..=400 * 6).contains(&ticks), "{ticks} ticks with {places}");
    }
}

#[test]
fn images_of_a_level_are_done_one_after_the_other() {
    let mut machine = Machine::new(1);
    let mut done = |ticks: u32| -> Vec<u32> {
        let start = machine.now;
        let images: Vec<u64> = (0..4).map(|_| machine.comes(ticks)).collect();
        machine.until_done(images[3]);
        images.iter().map(|image| machine.done[image] - start).collect()
    };
    assert_eq!(done(15), [15, 30, 45, 60]);
    // Were those of the last level served at once, all would be done at the end.
    let done = done(1_000);
    assert_eq!(done[3], 4_000);
    assert!(done[0] <= 4 * 200 + 800, "{done:?}");
    assert!(done.windows(2).all(|two| two[1] - two[0] >= 700), "{done:?}");
}

#[test]
fn what_nobody_wanted_is_not_owed() {
    let mut machine = Machine::new(1);
    let bomb = machine.comes(100_000);
    for _ in 0..10_000 {
        machine.tick();
    }
    // The bomb had 50 s. Others come for which there is no place beside it, and more than one of them.
    let others: Vec<u64> = (0..3).map(|_| machine.comes(100_000)).collect();
    let before = machine.left[&bomb];
    for _ in 0..2_000 {
        machine.tick();
    }
    let had = before - machine.left[&bomb];
    assert!(had >= 2_000 / 4, "the bomb had {had} ticks of 2,000");
    assert!(others.iter().all(|other| machine.left[other] < 100_000));
}

#[test]
fn images_of_seconds_are_done_however_many_come() {
    // Sixteen clients send what takes two seconds, again and again, and each waits for five.
    let mut machine = Machine::new(2);
    let mut clients: Vec<(u64, u32)> = (0..16).map(|_| (machine.comes(400), 0)).collect();
    for _ in 0..10_000 {
        machine.tick();
        for client in &mut clients {
            let (image, waited) = *client;
            let gives_up = waited >= 1_000;
            if gives_up && machine.left.remove(&image).is_some() {
                machine.order.leave(image, Duration::ZERO);
            }
            *client = if gives_up || machine.done.contains_key(&image) {
                (machine.comes(400), 0)
            } else {
                (image, waited + u32::from(!machine.order.works(image)))
            };
        }
    }
    // One place does nothing else.
    assert!(machine.done.len() >= 10_000 / 400 - 1, "{} are done", machine.done.len());
}

#[test]
fn nobody_interrupts_an_elder_and_a_place_is_left_for_others() {
    let mut machine = Machine::new(2);
    let (elder, other) = (machine.comes(1_000), machine.comes(1_000));
    for _ in 0..100 {
        machine.tick();
    }
    let short: Vec<u64> = (0..3).map(|_| machine.comes(10)).collect();
    machine.until_done(short[2]);
    assert!(machine.left.contains_key(&other));
    machine.until_done(elder);
    assert_eq!(machine.now, 1_000, "it worked all the time");
    let last = machine.comes(10);
    machine.until_done(last);
    assert!(machine.left.contains_key(&other), "there is room for the short one beside the next elder");
}

#[test]
fn work_of_less_than_a_tick_counts() {
    let mut order = Order::new(1, MIB);
    let long = order.join(1);
    order.worked(long, Duration::from_millis(100));
    let mut short: VecDeque<u64> = (0..3).map(|_| order.join(1)).collect();
    let (mut of_long, mut of_short) = (Duration::ZERO, Duration::ZERO);
    while of_long + of_short < Duration::from_secs(9) {
        if order.works(long) {
            order.worked(long, TICK);
            of_long += TICK;
        } else {
            // Another comes for each that is done, so that some always wait.
            short.push_back(order.join(1));
            let done = short.pop_front().unwrap();
            assert!(order.works(done));
            order.leave(done, TICK / 2);
            of_short += TICK / 2;
        }
        if order.images[&long].level > 1 {
            return assert!(of_long > of_short / 2, "{of_long:?} and {of_short:?}");
        }
    }
    panic!("{of_long:?} of the long one and {of_short:?}");
}

/// An order with one place and 100 MiB, of two images: one of 4 pixels that waits, and has had 100 ms and 60 MiB; and one of
/// `pixels` that works.
fn beside_one_that_waits(pixels: u64) -> (Order, u64, u64) {
    let mut order = Order::new(1, 100 * MIB);
    let (waits, works) = (order.join(4), order.join(pixels));
    assert!(order.take(waits, 60 * MIB));
    order.worked(waits, Duration::from_millis(100));
    assert!(order.works(works) && !order.works(waits));
    (order, waits, works)
}

#[test]
fn memory_is_taken_from_who_waits_and_declares_more() {
    let (mut order, bomb, other) = beside_one_that_waits(3);
    assert!(!order.take(other, 70 * MIB));
    assert_eq!(order.make_room(other, 70 * MIB), Room::Soon);
    assert!(order.is_evicted(bomb) && !order.take(other, 70 * MIB), "it still has it");
    assert_eq!(order.make_room(other, 70 * MIB), Room::Soon);
    order.give_back(bomb, 40 * MIB);
    assert!(order.take(other, 70 * MIB));
    order.leave(bomb, Duration::ZERO);
    assert_eq!(order.memory_left, 30 * MIB);
    order.leave(other, Duration::ZERO);
    assert_eq!(order.memory_left, 100 * MIB);
}

#[test]
fn memory_is_taken_from_who_declares_as_much_and_had_more_time_and_from_nobody_who_declares_less() {
    let (mut order, bomb, other) = beside_one_that_waits(4);
    assert_eq!(order.make_room(other, 70 * MIB), Room::Soon);
    assert!(order.is_evicted(bomb));
    let (mut order, smaller, other) = beside_one_that_waits(5);
    assert_eq!(order.make_room(other, 70 * MIB), Room::None);
    assert!(!order.is_evicted(smaller));
}

#[test]
fn an_elder_has_the_memory_of_whoever_waits() {
    let mut order = Order::new(2, 100 * MIB);
    let images: Vec<u64> = [9, 1, 1].map(|pixels| order.join(pixels)).to_vec();
    order.worked(images[0], Duration::from_millis(100));
    assert!(order.take(images[1], 80 * MIB));
    order.worked(images[1], Duration::from_millis(100));
    assert!(order.works(images[0]) && !order.works(images[1]) && order.works(images[2]));
    assert_eq!(order.make_room(images[0], 50 * MIB), Room::Soon);
    assert!(order.is_evicted(images[1]));
}

#[test]
fn nobody_is_evicted_in_vain() {
    let (mut order, bomb, other) = beside_one_that_waits(1);
    assert_eq!(order.make_room(other, 101 * MIB), Room::None, "there is not so much");
    assert!(!order.is_evicted(bomb));
    // Elsewhere what the lane has left is none.
    assert_eq!(order.evict_for(other, 61 * MIB), Room::None);
    assert_eq!(order.evict_for(other, 60 * MIB), Room::Soon);
    assert!(order.is_evicted(bomb));
}

#[test]
fn of_a_level_the_one_of_fewest_pixels_is_next_and_the_first_of_as_many() {
    let mut order = Order::new(1, MIB);
    let works = order.join(1);
    let [large, small, smaller, as_small] = [9, 4, 2, 4].map(|pixels| order.join(pixels));
    order.leave(works, Duration::ZERO);
    for next in [smaller, small, as_small, large] {
        assert!(order.works(next));
        order.leave(next, Duration::ZERO);
    }
}

#[test]
fn who_waits_may_leave() {
    let mut order = Order::new(1, MIB);
    let (first, second, third) = (order.join(1), order.join(1), order.join(1));
    order.leave(second, Duration::ZERO);
    order.leave(first, Duration::ZERO);
    assert!(order.works(third));
    order.leave(third, Duration::ZERO);
    let next = order.join(1);
    assert!(order.works(next));
}
