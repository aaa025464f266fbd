#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

type Work = Box<dyn FnOnce(&Arc<AtomicBool>) + Send>;

/// Runs what it is given; wanted until told otherwise.
struct Job {
    wanted: Arc<AtomicBool>,
    work: Work,
}

impl Job {
    fn new(work: impl FnOnce(&Arc<AtomicBool>) + Send + 'static) -> Self {
        Self { wanted: Arc::new(AtomicBool::new(true)), work: Box::new(work) }
    }
}

impl Task for Job {
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn run(self, stopping: &Arc<AtomicBool>) {
        (self.work)(stopping);
    }
}

fn threads(count: usize) -> Threads<'static> {
    Threads { name: "test", count, stack_bytes: 256 << 10, niceness: 0 }
}

fn pool(workers: usize, capacity: usize) -> Pool<Job> {
    Pool::start(&threads(workers), capacity).unwrap()
}

/// Occupies one thread until the returned sender is used or dropped.
fn occupy(pool: &Pool<Job>) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (started, has_started) = channel();
    let job = Job::new(move |_| {
        started.send(()).unwrap();
        let _ = released.recv();
    });
    pool.submit(job).unwrap();
    has_started.recv().unwrap();
    release
}

fn report(message: u8) -> (Job, Receiver<u8>) {
    let (sender, receiver) = channel();
    (Job::new(move |_| sender.send(message).unwrap()), receiver)
}

#[test]
fn tasks_run_on_named_threads() {
    let pool = pool(2, 4);
    let (sender, receiver) = channel();
    pool.submit(Job::new(move |_| sender.send(thread::current().name().map(str::to_owned)).unwrap()))
        .unwrap();
    assert!(receiver.recv().unwrap().unwrap().starts_with("test-"));
}

#[cfg(target_os = "linux")]
#[test]
fn threads_stand_back_and_this_one_does_not() {
    let own = rustix::process::getpriority_process(None).unwrap();
    let pool = Pool::start(&Threads { niceness: 7, ..threads(1) }, 1).unwrap();
    let (sender, receiver) = channel();
    pool.submit(Job::new(move |_| sender.send(rustix::process::getpriority_process(None).unwrap()).unwrap()))
        .unwrap();
    assert_eq!(receiver.recv().unwrap(), (own + 7).min(19));
    assert_eq!(rustix::process::getpriority_process(None).unwrap(), own);
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again_later() {
    let pool = pool(1, 1);
    let release = occupy(&pool);
    let (first, first_ran) = report(1);
    pool.submit(first).unwrap();
    let refused = pool.submit(report(2).0).unwrap_err().reason;
    assert!(matches!(refused, Refused::Full { retry_after } if retry_after >= Duration::from_millis(10)));
    drop(release);
    assert_eq!(first_ran.recv().unwrap(), 1);
    let (third, third_ran) = report(3);
    pool.submit(third).unwrap();
    assert_eq!(third_ran.recv().unwrap(), 3);
}

#[test]
fn a_queue_of_no_place_still_feeds_idle_threads() {
    let pool = pool(1, 0);
    let release = occupy(&pool);
    assert!(matches!(pool.submit(report(1).0).unwrap_err().reason, Refused::Full { .. }));
    drop(release);
}

#[test]
fn unwanted_tasks_are_dropped_unrun_and_make_room() {
    let pool = pool(1, 1);
    let release = occupy(&pool);
    let (abandoned, abandoned_ran) = report(1);
    abandoned.wanted.store(false, Ordering::Relaxed);
    pool.submit(abandoned).unwrap();
    let (wanted, wanted_ran) = report(2);
    pool.submit(wanted).unwrap();
    drop(release);
    assert_eq!(wanted_ran.recv().unwrap(), 2);
    assert!(abandoned_ran.recv().is_err(), "it ran");
}

#[test]
fn a_panic_costs_nobody_else_anything() {
    let pool = pool(1, 4);
    pool.submit(Job::new(|_| panic!("of this test, on purpose"))).unwrap();
    let (next, ran) = report(7);
    pool.submit(next).unwrap();
    assert_eq!(ran.recv().unwrap(), 7);
}

#[test]
fn dropping_the_pool_drops_what_waits_and_stops_what_runs() {
    let pool = pool(1, 1);
    let (started, has_started) = channel();
    let running = Job::new(move |stopping| {
        started.send(()).unwrap();
        while !stopping.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    });
    pool.submit(running).unwrap();
    has_started.recv().unwrap();
    let (waiting, waiting_ran) = report(1);
    pool.submit(waiting).unwrap();
    drop(pool);
    assert!(waiting_ran.recv().is_err(), "it ran");
}
