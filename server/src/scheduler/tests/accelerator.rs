//! An accelerator's backend that breaks: nobody waits while another is made and warmed.

use super::*;
use std::sync::atomic::AtomicBool;

/// Makes backends that note what they run, one after the other.
struct Factory {
    /// Rows of each run of what it made.
    run: Arc<Mutex<Vec<usize>>>,
    fits: usize,
}

impl BackendFactory for Factory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        let (run, fits) = (Arc::clone(&self.run), self.fits);
        let backend = SimulatedBackend::new(move |batch| {
            if batch.rows > fits {
                return Err(BackendError::of_kind(FailureKind::OutOfMemory, "Failed to allocate memory"));
            }
            lock(&run).push(batch.rows);
            SimulatedBackend::echo(batch)
        });
        backend.create()
    }

    fn is_on_accelerator(&self) -> bool {
        true
    }
}

/// Breaks an instance in this way, and gives what its caller is told and what the new one has run when it is back.
async fn broken_by(
    fits: usize,
    breaks: impl Fn() -> Result<Vec<Tensor>, BackendError> + Send + Sync + 'static,
) -> (Bench, ErrorCode, Vec<usize>) {
    let is_broken = AtomicBool::new(false);
    let backend = SimulatedBackend::new(move |batch| {
        is_broken.fetch_or(batch.inputs[0].data.contains(&13), Ordering::SeqCst);
        if is_broken.load(Ordering::SeqCst) { breaks() } else { SimulatedBackend::echo(batch) }
    });
    let run = Arc::new(Mutex::new(Vec::new()));
    let bench = bench_with(1, 16, &backend, Arc::new(Factory { run: Arc::clone(&run), fits }));
    bench.scheduler.infer(request(&[1]), None).await.unwrap();
    let error = bench.scheduler.infer(request(&[13]), None).await.unwrap_err();
    while lock(&bench.recorder.broken).last().map(|broken| broken.broken) != Some(0) {
        tokio::task::yield_now().await;
    }
    let told: Vec<_> = lock(&bench.recorder.broken).iter().map(|broken| broken.broken).collect();
    assert_eq!(told, [1, 0], "it is out until the new one is warm");
    let ran = lock(&run).clone();
    assert_eq!(bench.ask(&[2], None).await.await.unwrap().unwrap(), [2]);
    (bench, error.code(), ran)
}

#[tokio::test]
async fn what_breaks_is_warmed_in_every_size_before_it_serves_again() {
    let (_, told, ran) = broken_by(8, || Err(BackendError::new("the session is broken"))).await;
    assert_eq!((told, ran), (ErrorCode::Unavailable, vec![1, 8, 2, 3, 4, 5, 6, 7]));
}

#[tokio::test]
async fn after_a_panic_too_and_with_what_the_memory_is_enough_for() {
    let (bench, told, ran) = broken_by(4, || panic!("13 is bad luck")).await;
    assert_eq!((told, ran), (ErrorCode::Internal, vec![1, 2, 3, 4]));
    assert_eq!(*lock(&bench.recorder.batch_limits), [8, 3]);
}
