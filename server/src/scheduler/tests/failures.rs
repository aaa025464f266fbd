//! What fails fails alone, and what breaks is made anew.

use super::*;

#[tokio::test]
async fn in_a_failing_batch_only_the_bad_request_fails() {
    let (gate, open) = gated();
    let bench = bench(1, 16, move |batch| {
        let outputs = gate(batch);
        if batch.inputs[0].data.contains(&13) { Err(BackendError::new("13 is bad luck")) } else { outputs }
    });
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let (good, bad) = (bench.ask(&[2], None).await, bench.ask(&[13], None).await);
    bench.wait_for_pending(2).await;
    drop(open);
    first.await.unwrap().unwrap();
    assert_eq!(good.await.unwrap().unwrap(), [2]);
    assert_eq!(bad.await.unwrap(), Err(ServingError::ExecutionFailed { model: "m".to_owned() }));
    let closed: Vec<_> =
        lock(&bench.recorder.batches).iter().map(|batch| (batch.closed, batch.succeeded)).collect();
    use CloseReason::{Queue, Retry};
    assert_eq!(closed, [(Queue, true), (Queue, false), (Retry, true), (Retry, false)]);
}

#[tokio::test]
async fn a_panic_answers_its_batch_and_the_server_goes_on() {
    let bench = bench(1, 16, |batch| {
        assert!(!batch.inputs[0].data.contains(&13), "13 is bad luck");
        SimulatedBackend::echo(batch)
    });
    for _ in 0..3 {
        let error = bench.scheduler.infer(request(&[13]), None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(!error.to_string().contains("luck"), "details belong into the log");
        assert!(bench.ask(&[2], None).await.await.unwrap().is_ok_and(|rows| rows == [2]));
    }
    assert_eq!(*lock(&bench.recorder.failed), [ErrorCode::Internal; 3]);
}

/// Makes backends only when it is let.
struct SlowFactory {
    backend: SimulatedBackend,
    gate: Mutex<mpsc::Receiver<Result<(), BackendError>>>,
}

impl BackendFactory for SlowFactory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        lock(&self.gate).recv().map_err(|_| BackendError::new("no more backends"))??;
        Ok(Box::new(self.backend.clone()))
    }
}

#[tokio::test]
async fn while_no_instance_works_nobody_is_kept_waiting() {
    let (gate, open) = gated();
    let backend = SimulatedBackend::new(move |batch| {
        let outputs = gate(batch);
        assert!(!batch.inputs[0].data.contains(&13), "13 is bad luck");
        outputs
    });
    let (build, builds) = mpsc::channel();
    let factory = SlowFactory { backend: backend.clone(), gate: Mutex::new(builds) };
    let bench = bench_with(1, 16, &backend, Arc::new(factory));
    let bad = bench.ask(&[13], None).await;
    bench.wait_for_pending(0).await;
    let queued = bench.ask(&[1], None).await;
    bench.wait_for_pending(1).await;
    drop(open);
    assert_eq!(bad.await.unwrap().unwrap_err().code(), ErrorCode::Internal);
    build.send(Err(BackendError::new("the model file is gone"))).unwrap();
    assert_eq!(queued.await.unwrap().unwrap_err().code(), ErrorCode::Unavailable);
    let error = bench.scheduler.infer(request(&[2]), None).await.unwrap_err();
    assert!(error.to_string().contains("being loaded again"), "{error}");
    let broken = bench.scheduler.broken_instances();
    assert!(broken.is_all() && broken.to_string().contains("the model file is gone"), "{broken}");
    build.send(Err(BackendError::new("no memory"))).unwrap();
    build.send(Ok(())).unwrap();
    loop {
        match bench.scheduler.infer(request(&[2]), None).await {
            Ok(response) => break assert_eq!(response.outputs[0].data[..], [2]),
            Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.scheduler.broken_instances().to_string(), "");
    let told = lock(&bench.recorder.broken).clone();
    let told: Vec<_> = told.iter().map(|broken| (broken.count(), broken.reason.as_str())).collect();
    assert_eq!(told, [(1, "the model file is gone"), (1, "no memory"), (0, "")]);
}

/// A request of one row for each of the bytes, all queued behind a batch that is held back; what lets them go.
async fn ask_together(
    bench: &Bench,
    open: mpsc::Sender<()>,
    rows: impl IntoIterator<Item = u8>,
) -> Vec<Asked> {
    let first = bench.ask(&[0], None).await;
    bench.wait_for_pending(0).await;
    let mut asked = Vec::new();
    for row in rows {
        asked.push(bench.ask(&[row], None).await);
    }
    drop(open);
    first.await.unwrap().unwrap();
    asked
}

#[tokio::test]
async fn one_bad_request_of_eight_costs_six_runs_more() {
    let (gate, open) = gated();
    let bench = bench(1, 16, move |batch| {
        let outputs = gate(batch);
        if batch.inputs[0].data.contains(&13) { Err(BackendError::new("13 is bad luck")) } else { outputs }
    });
    let asked = ask_together(&bench, open, 8..16).await;
    for (asked, row) in asked.into_iter().zip(8_u8..16) {
        let answer = asked.await.unwrap();
        match row {
            13 => assert_eq!(answer, Err(ServingError::ExecutionFailed { model: "m".to_owned() })),
            _ => assert_eq!(answer.unwrap(), [row]),
        }
    }
    let batches = lock(&bench.recorder.batches).clone();
    let runs: Vec<_> = batches.iter().skip(1).map(|batch| (batch.requests, batch.succeeded)).collect();
    // 8..16, its first half, its second, 12 and 13, 12 alone, 13 alone, 14 and 15: in the order of the rows.
    let expected = [(8, false), (4, true), (4, false), (2, false), (1, true), (1, false), (2, true)];
    assert_eq!(runs, expected);
    assert!(batches.iter().skip(2).all(|batch| batch.closed == CloseReason::Retry));
}

/// Makes sound backends; the one in use is another.
struct SoundFactory {
    built: AtomicUsize,
}

impl BackendFactory for SoundFactory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        self.built.fetch_add(1, Ordering::SeqCst);
        SimulatedBackend::new(SimulatedBackend::echo).create()
    }
}

#[tokio::test]
async fn a_broken_backend_is_made_anew_and_its_batch_is_answered() {
    let (gate, open) = gated();
    let broken = std::sync::atomic::AtomicBool::new(false);
    let backend = SimulatedBackend::new(move |batch| {
        let outputs = gate(batch);
        if broken.swap(true, Ordering::SeqCst) {
            Err(BackendError::new("the device is gone"))
        } else {
            outputs
        }
    });
    let factory = Arc::new(SoundFactory { built: AtomicUsize::new(0) });
    let bench = bench_with(1, 16, &backend, Arc::<SoundFactory>::clone(&factory));
    for (asked, row) in ask_together(&bench, open, 1..4).await.into_iter().zip(1..4) {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
    assert_eq!(factory.built.load(Ordering::SeqCst), 1);
    let batches = lock(&bench.recorder.batches).clone();
    let runs: Vec<_> = batches.iter().map(|batch| (batch.requests, batch.succeeded)).collect();
    assert_eq!(runs, [(1, true), (3, false), (3, true)]);
}

#[tokio::test]
async fn a_request_that_is_bad_again_and_again_has_nothing_rebuilt() {
    let factory = Arc::new(SoundFactory { built: AtomicUsize::new(0) });
    let backend = SimulatedBackend::new(|batch| match batch.inputs[0].data.contains(&13) {
        true => Err(BackendError::new("13 is bad luck")),
        false => SimulatedBackend::echo(batch),
    });
    let bench = bench_with(1, 16, &backend, Arc::<SoundFactory>::clone(&factory));
    for _ in 0..3 {
        let error = bench.scheduler.infer(request(&[13]), None).await.unwrap_err();
        assert_eq!(error, ServingError::ExecutionFailed { model: "m".to_owned() });
    }
    assert_eq!(factory.built.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_model_that_takes_no_zeros_is_rebuilt_once_to_find_out() {
    let refuses_zeros = |batch: &Batch<'_>| match batch.inputs[0].data[..] {
        [0] | [13] => Err(BackendError::new("not that")),
        _ => SimulatedBackend::echo(batch),
    };
    let (built, backend) = (Arc::new(AtomicUsize::new(0)), SimulatedBackend::new(refuses_zeros));
    struct Counting(Arc<AtomicUsize>, SimulatedBackend);
    impl BackendFactory for Counting {
        fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.create()
        }
    }
    let factory = Arc::new(Counting(Arc::clone(&built), backend.clone()));
    let bench = bench_with(1, 16, &backend, factory);
    for _ in 0..3 {
        let error = bench.scheduler.infer(request(&[13]), None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal);
        bench.scheduler.infer(request(&[1]), None).await.unwrap();
    }
    assert_eq!(built.load(Ordering::SeqCst), 1);
}

/// A device with memory for so many rows.
fn with_memory_for(rows: usize, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
    if batch.rows > rows {
        return Err(BackendError::of_kind(
            FailureKind::OutOfMemory,
            "Failed to allocate memory for requested buffer",
        ));
    }
    SimulatedBackend::echo(batch)
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_split_and_no_such_batch_is_made_again() {
    let (gate, open) = gated();
    let bench = bench(1, 16, move |batch| gate(batch).and_then(|_| with_memory_for(3, batch)));
    let asked = ask_together(&bench, open, 1..9).await;
    for (asked, row) in asked.into_iter().zip(1_u8..) {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
    let sizes = || -> Vec<_> {
        lock(&bench.recorder.batches).iter().map(|batch| (batch.rows, batch.succeeded)).collect()
    };
    // Eight do not fit, nor do four, nor do the other four: twos do.
    let expected =
        [(1, true), (8, false), (4, false), (2, true), (2, true), (4, false), (2, true), (2, true)];
    assert_eq!(sizes(), expected);
    assert_eq!(*lock(&bench.recorder.batch_limits), [8, 4, 2]);

    // What comes now is in batches that fit.
    let asked: Vec<_> = futures_of(&bench, 1..9).await;
    for (asked, row) in asked.into_iter().zip(1_u8..) {
        assert_eq!(asked.await.unwrap().unwrap(), [row]);
    }
    let later = &sizes()[expected.len()..];
    assert!(later.iter().all(|&(rows, succeeded)| rows <= 2 && succeeded), "{later:?}");
    assert_eq!(later.iter().map(|batch| batch.0).sum::<usize>(), 8);
}

async fn futures_of(bench: &Bench, rows: impl IntoIterator<Item = u8>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for row in rows {
        asked.push(bench.ask(&[row], None).await);
    }
    asked
}

#[tokio::test]
async fn a_request_that_does_not_fit_by_itself_is_refused_from_then_on() {
    let bench = bench(1, 16, |batch| with_memory_for(3, batch));
    let runs = || lock(&bench.recorder.batches).len();
    let ask = async |rows: &[u8]| bench.scheduler.infer(request(rows), None).await.map(|_| ());
    let too_large = |rows| {
        Err(ServingError::TooLarge(format!(
            "The device has no memory for {rows} rows of model `m` at once: send several requests of at most 2."
        )))
    };
    assert_eq!(ask(&[1, 2, 3, 4]).await, too_large(4));
    assert_eq!(runs(), 1);
    for rows in [4, 5, 8] {
        assert_eq!(ask(&vec![0; rows]).await, too_large(rows));
    }
    assert_eq!(runs(), 1, "no such request is tried again");
    assert_eq!(ask(&[1, 2, 3]).await, Ok(()), "of fewer nothing is known");
    assert_eq!(*lock(&bench.recorder.batch_limits), [8, 2]);
}

#[tokio::test]
async fn one_row_that_does_not_fit_is_tried_again() {
    let has_memory = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let has = Arc::clone(&has_memory);
    let bench = bench(1, 16, move |batch| with_memory_for(usize::from(has.load(Ordering::SeqCst)), batch));
    let error = bench.scheduler.infer(request(&[1]), None).await.unwrap_err();
    assert_eq!(error, ServingError::ExecutionFailed { model: "m".to_owned() });
    has_memory.store(true, Ordering::SeqCst);
    bench.scheduler.infer(request(&[1]), None).await.unwrap();
}

/// When a model is loaded, sizes that do not fit are left out.
#[tokio::test]
async fn requests_beyond_what_fitted_at_the_start_are_refused() {
    let backend = SimulatedBackend::new(|batch| with_memory_for(6, batch));
    let bench = bench_with_limits(1, PolicyLimits::new(6, 1), &backend, Arc::new(backend.clone()));
    let error = bench.scheduler.infer(request(&[0; 7]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge);
    bench.scheduler.infer(request(&[0; 6]), None).await.unwrap();
    assert_eq!(lock(&bench.recorder.batches).len(), 1);
}

/// One batch after the other, in order: the other instance waits while the server stops, and the one at work breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_in_order_is_answered_when_an_instance_breaks_during_a_stop() {
    for instances in [1, 2, 3] {
        let (gate, open) = gated();
        let backend = SimulatedBackend::new(move |batch| {
            let outputs = gate(batch);
            assert!(!batch.inputs[0].data.contains(&13), "13 is bad luck");
            outputs
        });
        let broken = Arc::new(SlowFactory { backend: backend.clone(), gate: Mutex::new(mpsc::channel().1) });
        let limits = PolicyLimits { preserve_ordering: true, ..PolicyLimits::new(8, 1) };
        let bench = bench_with_limits(instances, limits, &backend, broken);
        let bad = bench.ask(&[13], None).await;
        bench.wait_for_pending(0).await;
        let queued = [bench.ask(&[1], None).await, bench.ask(&[2], None).await];
        bench.wait_for_pending(2).await;
        bench.scheduler.close();
        // Whoever would leave now, while there is work, has time to; nobody does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(lock(&bench.scheduler.threads).iter().all(|thread| !thread.is_finished()));
        drop(open);
        let stopping = Arc::clone(&bench.scheduler);
        let stopped = tokio::task::spawn_blocking(move || stopping.stop());
        let end = Duration::from_secs(60);
        assert_eq!(bad.await.unwrap().unwrap_err().code(), ErrorCode::Internal);
        for (asked, row) in queued.into_iter().zip([1, 2]) {
            let answer = tokio::time::timeout(end, asked).await.expect("it is answered").unwrap();
            match instances {
                1 => assert_eq!(answer.unwrap_err().code(), ErrorCode::Unavailable),
                _ => assert_eq!(answer.unwrap(), [row]),
            }
        }
        tokio::time::timeout(end, stopped).await.expect("it stops").unwrap();
    }
}
