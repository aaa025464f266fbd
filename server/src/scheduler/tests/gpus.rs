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
    let bench = bench_of(PolicyLimits::new(8, 1), uuids.iter().map(parts).collect());
    health.watch(bench.scheduler.look_at_devices());
    bench
}

#[tokio::test]
async fn a_gpu_that_falls_off_takes_its_instances_out_and_brings_them_back() {
    let health = GpuHealth::default();
    let bench = on_gpus(&health, &["a", "b"]);
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
