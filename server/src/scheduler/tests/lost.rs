//! A device that is lost just when what failed is run again.

use super::*;
use std::sync::atomic::AtomicBool;

fn failure(kind: FailureKind) -> Result<Vec<Tensor>, BackendError> {
    Err(BackendError::of_kind(kind, "so it is"))
}

/// Makes nothing while it is told so, and else backends like this one.
struct Factory {
    backend: SimulatedBackend,
    makes: AtomicBool,
}

impl BackendFactory for Factory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        match self.makes.load(Ordering::SeqCst) {
            true => self.backend.create(),
            false => Err(BackendError::new("no device")),
        }
    }
}

/// Its memory is short, which is no reason to look whether it is there, and then it is gone.
#[tokio::test]
async fn what_is_run_again_on_a_device_that_is_lost_by_then_is_told_to_come_back() {
    let backend = SimulatedBackend::new(|batch| match batch.rows {
        1 => failure(FailureKind::DeviceLost),
        _ => failure(FailureKind::OutOfMemory),
    });
    let factory = Factory { backend: backend.clone(), makes: AtomicBool::new(false) };
    let (gate, open) = gated();
    let gated = SimulatedBackend::new(move |batch| match batch.inputs[0].data {
        [0] => gate(batch),
        _ => backend.clone().infer(batch),
    });
    let bench = bench_with(1, 16, &gated, Arc::new(factory));
    let first = bench.ask(&[0], None).await;
    bench.wait_for_pending(0).await;
    let mut asked = Vec::new();
    for row in 1..=4 {
        asked.push(bench.ask(&[row], None).await);
    }
    drop(open);
    first.await.unwrap().unwrap();
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap_err().code(), ErrorCode::Unavailable);
    }
    let batches = lock(&bench.recorder.batches).clone();
    // Nothing is run any more once the device is gone.
    assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [1, 4, 2, 1]);
    // The callers are told first.
    while !bench.scheduler.broken_instances().is_all() {
        tokio::task::yield_now().await;
    }
    let reason = bench.scheduler.broken_instances().reason;
    assert!(reason.contains("so it is"), "{reason}");
}

/// A new backend runs zeros, and is lost at the same request again.
#[tokio::test]
async fn a_request_that_loses_the_device_twice_is_told_to_come_back() {
    let backend = SimulatedBackend::new(|batch| match batch.inputs[0].data {
        [13] => failure(FailureKind::DeviceLost),
        _ => SimulatedBackend::echo(batch),
    });
    let factory = Factory { backend: backend.clone(), makes: AtomicBool::new(true) };
    let bench = bench_with(1, 16, &backend, Arc::new(factory));
    let error = bench.scheduler.infer(request(&[13]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(lock(&bench.recorder.batches).len(), 2);
}
