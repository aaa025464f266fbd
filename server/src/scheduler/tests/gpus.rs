//! What a lost GPU takes out.

use super::*;
use crate::backend::watched::{Watched, WatchedFactory};
use crate::gpu::GpuHealth;

/// A scheduler with an instance on each of these GPUs.
fn on_gpus(health: &GpuHealth, uuids: &[&str]) -> Bench {
    let parts = |uuid: &&str| {
        let gpu = Watched { health: health.clone(), uuid: Some((*uuid).to_owned()) };
        let factory = WatchedFactory { inner: SimulatedBackend::new(SimulatedBackend::echo), gpu };
        InstanceParts { backend: factory.create().unwrap(), factory: Arc::new(factory) }
    };
    bench_of(PolicyLimits::new(8, 1), uuids.iter().map(parts).collect())
}

#[tokio::test]
async fn a_gpu_that_falls_off_takes_its_instances_out_and_brings_them_back() {
    let health = GpuHealth::default();
    let bench = on_gpus(&health, &["a", "b"]);
    health.watch(bench.scheduler.look_at_devices());
    let broken = || lock(&bench.recorder.broken).last().map(|broken| broken.broken);
    health.lost("a", "Xid 79", false);
    // Nobody asks for anything meanwhile: the instance looks because it is told to.
    while broken() != Some(1) {
        tokio::task::yield_now().await;
    }
    for row in 0..20 {
        assert_eq!(bench.ask(&[row], None).await.await.unwrap().unwrap(), [row], "the other goes on");
    }
    health.lost("b", "Xid 79", false);
    while broken() != Some(2) {
        tokio::task::yield_now().await;
    }
    let error = bench.scheduler.infer(request(&[1]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    health.answers("a");
    health.answers("b");
    while broken() != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.ask(&[7], None).await.await.unwrap().unwrap(), [7]);
}

/// Between the opening of the sessions and the start of the watch.
#[tokio::test]
async fn a_gpu_that_fell_off_before_it_was_watched_is_noticed_without_a_request() {
    let health = GpuHealth::default();
    let bench = on_gpus(&health, &["a"]);
    health.lost("a", "Xid 79", true);
    assert!(lock(&bench.recorder.broken).is_empty());
    health.watch(bench.scheduler.look_at_devices());
    while !bench.scheduler.broken_instances().is_all() {
        tokio::task::yield_now().await;
    }
    let reason = bench.scheduler.broken_instances().reason;
    assert!(reason.contains("Xid 79"), "{reason}");
}
