//! Narrow instances work side by side; the wide one has the machine for itself.

use std::sync::atomic::AtomicBool;

use super::*;

/// Cores of the simulated machine: as many narrow instances, and a wide one that uses them all.
const CORES: usize = 2;

/// A scheduler with a wide backend that is the faster one.
fn bench_with_wide(
    narrow: &SimulatedBackend,
    wide: &SimulatedBackend,
    factory: Arc<dyn BackendFactory>,
) -> Bench {
    let parts =
        |backend: &SimulatedBackend, factory| InstanceParts { backend: Box::new(backend.clone()), factory };
    let profile = |micros| {
        LatencyProfile::new([(1, Duration::from_micros(micros)), (8, Duration::from_micros(micros))])
    };
    let (recorder, budget) = (Arc::new(Recorder::default()), InFlight::new(1 << 20));
    let options = SchedulerOptions {
        signature: signature(),
        version: "7".to_owned(),
        limits: PolicyLimits::new(8, CORES),
        profiles: Profiles { narrow: profile(10), wide: Some(profile(5)) },
        observer: Arc::<Recorder>::clone(&recorder),
        outputs: Some(Arc::new(budget.clone())),
    };
    let instances = Instances {
        narrow: (0..CORES).map(|_| parts(narrow, Arc::new(narrow.clone()))).collect(),
        wide: Some(parts(wide, factory)),
    };
    let scheduler = Scheduler::start(options, instances).unwrap();
    Bench { scheduler: Arc::new(scheduler), recorder, budget }
}

/// A backend that keeps so many of the machine's cores at work.
fn working(at_work: &Arc<AtomicUsize>, too_many: &Arc<AtomicBool>, cores: usize) -> SimulatedBackend {
    let (at_work, too_many) = (Arc::clone(at_work), Arc::clone(too_many));
    SimulatedBackend::new(move |batch| {
        let now = at_work.fetch_add(cores, Ordering::SeqCst) + cores;
        too_many.fetch_or(now > CORES, Ordering::SeqCst);
        for _ in 0..20 {
            thread::yield_now();
        }
        at_work.fetch_sub(cores, Ordering::SeqCst);
        SimulatedBackend::echo(batch)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_are_more_threads_at_work_than_cores() {
    let (at_work, too_many) = (Arc::default(), Arc::default());
    let narrow = working(&at_work, &too_many, 1);
    let wide = working(&at_work, &too_many, CORES);
    let bench = bench_with_wide(&narrow, &wide, Arc::new(wide.clone()));
    for round in 0..200_u8 {
        assert_eq!(bench.ask(&[round], None).await.await.unwrap().unwrap(), [round]);
        let mut burst = Vec::new();
        for row in 0..12 {
            burst.push(bench.ask(&[row, round], None).await);
        }
        for (asked, row) in burst.into_iter().zip(0..) {
            assert_eq!(asked.await.unwrap().unwrap(), [row, round]);
        }
    }
    assert!(!too_many.load(Ordering::SeqCst));
    let batches = lock(&bench.recorder.batches).clone();
    let lone = |batch: &&BatchReport| batch.lane == Lane::Wide;
    assert!(batches.iter().filter(lone).count() >= 200, "a lone request has the whole machine");
    assert!(
        batches.iter().any(|batch| batch.lane == Lane::Narrow),
        "requests that queue are run side by side"
    );
}

#[tokio::test]
async fn what_queues_behind_the_wide_lane_is_run_on_all_narrow_ones_at_once() {
    let (behaviour, open) = gated();
    let wide = SimulatedBackend::new(behaviour);
    // Each narrow instance waits until the other one runs as well.
    let together = std::sync::Barrier::new(CORES);
    let narrow = SimulatedBackend::new(move |batch| {
        together.wait();
        SimulatedBackend::echo(batch)
    });
    let bench = bench_with_wide(&narrow, &wide, Arc::new(wide.clone()));
    let lone = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let full: Vec<u8> = (0..8).collect();
    let queued = [bench.ask(&full, None).await, bench.ask(&full, None).await];
    bench.wait_for_pending(2).await;
    drop(open);
    assert_eq!(lone.await.unwrap().unwrap(), [1]);
    for asked in queued {
        assert_eq!(asked.await.unwrap().unwrap(), full);
    }
}

#[tokio::test]
async fn a_stop_drains_all_lanes() {
    let (behaviour, open) = gated();
    let wide = SimulatedBackend::new(behaviour);
    let narrow = SimulatedBackend::new(SimulatedBackend::echo);
    let bench = bench_with_wide(&narrow, &wide, Arc::new(wide.clone()));
    let lone = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let mut queued = Vec::new();
    for row in 0..40 {
        queued.push(bench.ask(&[row], None).await);
    }
    bench.scheduler.close();
    drop(open);
    bench.scheduler.stop();
    assert_eq!(lone.await.unwrap().unwrap(), [1]);
    for (asked, row) in queued.into_iter().zip(0..) {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
    assert_eq!(bench.scheduler.pending(), 0);
}

/// Makes backends as soon as it is allowed to.
struct LateFactory {
    allowed: AtomicBool,
    tried: AtomicUsize,
}

impl BackendFactory for LateFactory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        match self.allowed.load(Ordering::SeqCst) {
            true => SimulatedBackend::new(SimulatedBackend::echo).create(),
            false => Err(BackendError::new("no memory")),
        }
    }
}

#[tokio::test]
async fn while_the_wide_session_is_broken_narrow_ones_do_its_work() {
    let wide = SimulatedBackend::new(|_| Err(BackendError::new("broken")));
    let narrow = SimulatedBackend::new(SimulatedBackend::echo);
    let factory = Arc::new(LateFactory { allowed: AtomicBool::new(false), tried: AtomicUsize::new(0) });
    let bench = bench_with_wide(&narrow, &wide, Arc::<LateFactory>::clone(&factory));
    for row in 0..10 {
        assert_eq!(bench.ask(&[row], None).await.await.unwrap().unwrap(), [row]);
    }
    assert_eq!(lock(&bench.recorder.failed).len(), 0);
    let broken = lock(&bench.recorder.batches).iter().filter(|batch| !batch.succeeded).count();
    assert_eq!((broken, factory.tried.load(Ordering::SeqCst)), (1, 1), "it is not tried for each request");
    let broken = bench.scheduler.broken_instances();
    assert!(
        (broken.count(), broken.is_all()) == (1, false) && broken.to_string().contains("no memory"),
        "{broken}"
    );
}
