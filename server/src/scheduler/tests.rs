#![allow(clippy::unwrap_used)]

use std::future::{Future as _, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::backend::simulated::SimulatedBackend;
use crate::backend::{BackendError, Batch, FailureKind};
use crate::limits::InFlight;
use crate::tensor::{DataType, Shape, Tensor, TensorSpec};
use service_kit::ErrorCode;

/// What an observer was told.
#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<BatchReport>>,
    failed: Mutex<Vec<ErrorCode>>,
    succeeded: AtomicUsize,
    abandoned: AtomicUsize,
    broken: Mutex<Vec<BrokenInstances>>,
    batch_limits: Mutex<Vec<usize>>,
}

impl ServingObserver for Recorder {
    fn request_succeeded(&self, labels: ModelLabels<'_>, report: &RequestReport) {
        assert_eq!((labels.model, labels.version), ("m", "7"));
        assert!(report.total >= report.queue);
        self.succeeded.fetch_add(1, Ordering::SeqCst);
    }
    fn request_failed(&self, _: ModelLabels<'_>, code: ErrorCode) {
        lock(&self.failed).push(code);
    }
    fn request_abandoned(&self, _: ModelLabels<'_>) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }
    fn batch_executed(&self, _: ModelLabels<'_>, report: &BatchReport) {
        lock(&self.batches).push(*report);
    }
    fn pending_requests(&self, _: ModelLabels<'_>, _: usize) {}
    fn instances_broken(&self, _: ModelLabels<'_>, broken: &BrokenInstances) {
        lock(&self.broken).push(broken.clone());
    }
    fn batch_limit(&self, _: ModelLabels<'_>, rows: usize) {
        lock(&self.batch_limits).push(rows);
    }
}

/// A model that takes and gives one byte a row.
fn signature() -> Arc<Signature> {
    signature_of(1)
}

/// One that takes and gives so many bytes a row.
fn signature_of(bytes: i64) -> Arc<Signature> {
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Uint8, dims: vec![bytes] };
    Arc::new(Signature {
        model: "m".into(),
        inputs: vec![InputSpec { tensor: spec.clone(), pixels: None }],
        outputs: vec![spec],
        max_batch_size: 8,
    })
}

/// A scheduler over simulated instances of that model.
struct Bench {
    scheduler: Arc<Scheduler>,
    recorder: Arc<Recorder>,
    /// What outputs are counted in.
    budget: InFlight,
}

fn bench_with(
    instances: usize,
    queue_size: usize,
    backend: &SimulatedBackend,
    factory: Arc<dyn BackendFactory>,
) -> Bench {
    let limits = PolicyLimits {
        default_queue_policy: QueuePolicy { max_queue_size: Some(queue_size), timeout: None },
        ..PolicyLimits::new(8, 1)
    };
    bench_with_limits(instances, limits, backend, factory)
}

fn bench_with_limits(
    instances: usize,
    limits: PolicyLimits,
    backend: &SimulatedBackend,
    factory: Arc<dyn BackendFactory>,
) -> Bench {
    let parts = |_| InstanceParts { backend: Box::new(backend.clone()), factory: Arc::clone(&factory) };
    bench_of(limits, (0..instances).map(parts).collect())
}

fn bench_of(limits: PolicyLimits, instances: Vec<InstanceParts>) -> Bench {
    bench_for(signature(), limits, instances)
}

fn bench_for(signature: Arc<Signature>, limits: PolicyLimits, instances: Vec<InstanceParts>) -> Bench {
    let (recorder, budget) = (Arc::new(Recorder::default()), InFlight::new(1 << 20));
    let options = SchedulerOptions {
        signature,
        version: "7".to_owned(),
        limits,
        profiles: LatencyProfile::new([(1, Duration::from_micros(10)), (8, Duration::from_micros(10))])
            .into(),
        observer: Arc::<Recorder>::clone(&recorder),
        outputs: Some(Arc::new(budget.clone())),
    };
    let scheduler = Scheduler::start(options, instances).unwrap();
    Bench { scheduler: Arc::new(scheduler), recorder, budget }
}

fn bench(
    instances: usize,
    queue_size: usize,
    behaviour: impl Fn(&Batch<'_>) -> Result<Vec<Tensor>, BackendError> + Send + Sync + 'static,
) -> Bench {
    let backend = SimulatedBackend::new(behaviour);
    bench_with(instances, queue_size, &backend.clone(), Arc::new(backend))
}

fn request(rows: &[u8]) -> InferenceRequest {
    let data = rows.to_vec().into();
    let shape = Shape::from([rows.len() as i64, 1]);
    let input = Tensor { name: "x".to_owned(), datatype: DataType::Uint8, shape, data };
    InferenceRequest { inputs: vec![input], ..InferenceRequest::default() }
}

type Asked = tokio::task::JoinHandle<Result<Vec<u8>, ServingError>>;

impl Bench {
    /// Sends a request, and returns when it is queued or taken.
    async fn ask(&self, rows: &[u8], deadline: Option<Instant>) -> Asked {
        let (scheduler, request) = (Arc::clone(&self.scheduler), request(rows));
        let mut answer = Box::pin(async move {
            let response = scheduler.infer(request, deadline).await?;
            Ok(response.outputs[0].data.to_vec())
        });
        // A request is in the queue once its future has been polled.
        let first = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        tokio::spawn(async move {
            match first {
                Poll::Ready(answer) => answer,
                Poll::Pending => answer.await,
            }
        })
    }

    async fn wait_for_pending(&self, count: usize) {
        while self.scheduler.pending() != count {
            tokio::task::yield_now().await;
        }
    }
}

/// A behaviour that waits, before each batch, until it is let go; and what lets it go.
fn gated() -> (impl Fn(&Batch<'_>) -> Result<Vec<Tensor>, BackendError> + Send + Sync, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let behaviour = move |batch: &Batch<'_>| {
        // A sender that is gone leaves the gate open.
        let _ = lock(&gate).recv();
        SimulatedBackend::echo(batch)
    };
    (behaviour, open)
}

#[tokio::test]
async fn what_queues_up_behind_a_batch_runs_together_and_each_gets_its_own() {
    let (behaviour, open) = gated();
    let bench = bench(1, 16, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let rest =
        [bench.ask(&[2, 3], None).await, bench.ask(&[4], None).await, bench.ask(&[5, 6, 7], None).await];
    bench.wait_for_pending(3).await;
    drop(open);
    assert_eq!(first.await.unwrap().unwrap(), [1]);
    let [a, b, c] = rest;
    assert_eq!(a.await.unwrap().unwrap(), [2, 3]);
    assert_eq!(b.await.unwrap().unwrap(), [4]);
    assert_eq!(c.await.unwrap().unwrap(), [5, 6, 7]);
    let batches = lock(&bench.recorder.batches).clone();
    assert_eq!(
        batches.iter().map(|batch| (batch.requests, batch.rows)).collect::<Vec<_>>(),
        [(1, 1), (3, 6)]
    );
    bench.scheduler.stop();
    assert_eq!(bench.recorder.succeeded.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_callers_on_three_instances_get_what_is_theirs() {
    let bench = bench(3, 1000, SimulatedBackend::echo);
    let mut asked = Vec::new();
    for i in 0..400_usize {
        let rows: Vec<u8> = (0..i % 8 + 1).map(|row| (i * 31 + row) as u8).collect();
        asked.push((bench.ask(&rows, None).await, rows));
    }
    for (asked, rows) in asked {
        assert_eq!(asked.await.unwrap().unwrap(), rows);
    }
    let rows: usize = lock(&bench.recorder.batches).iter().map(|batch| batch.rows).sum();
    assert_eq!(rows, (0..400).map(|i| i % 8 + 1).sum::<usize>());
    assert!(lock(&bench.recorder.batches).iter().all(|batch| batch.rows <= 8));
}

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let (behaviour, open) = gated();
    let bench = bench(1, 2, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let queued = [bench.ask(&[2], None).await, bench.ask(&[3], None).await];
    bench.wait_for_pending(2).await;
    let error = bench.scheduler.infer(request(&[4]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Overloaded);
    assert!(error.retry_after().is_some_and(|delay| delay > Duration::ZERO));
    // Whoever hangs up makes room.
    let [leaving, staying] = queued;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let replacing = bench.ask(&[5], None).await;
    drop(open);
    for (asked, rows) in [(first, [1]), (staying, [3]), (replacing, [5])] {
        assert_eq!(asked.await.unwrap().unwrap(), rows);
    }
    assert_eq!(bench.recorder.abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nothing_is_run_for_those_who_left_or_are_too_late() {
    let (behaviour, open) = gated();
    let bench = bench(1, 16, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let leaving = bench.ask(&[2], None).await;
    let late = bench.ask(&[3], Some(Instant::now() + Duration::from_millis(5))).await;
    bench.wait_for_pending(2).await;
    leaving.abort();
    assert_eq!(late.await.unwrap().unwrap_err().code(), ErrorCode::DeadlineExceeded);
    let past = Instant::now();
    assert_eq!(
        bench.scheduler.infer(request(&[4]), Some(past)).await.unwrap_err().code(),
        ErrorCode::DeadlineExceeded
    );
    drop(open);
    first.await.unwrap().unwrap();
    bench.scheduler.stop();
    assert_eq!(lock(&bench.recorder.batches).len(), 1);
    assert_eq!(bench.recorder.abandoned.load(Ordering::SeqCst), 1);
    assert_eq!(*lock(&bench.recorder.failed), [ErrorCode::DeadlineExceeded; 2]);
}

/// Its caller waits for longer, and is told to come again.
#[tokio::test]
async fn who_is_late_for_the_objective_alone_is_told_of_overload() {
    const OBJECTIVE: Duration = Duration::from_millis(20);
    let (behaviour, open) = gated();
    let backend = SimulatedBackend::new(behaviour);
    let limits = PolicyLimits { slo: Some(OBJECTIVE), ..PolicyLimits::new(8, 1) };
    let bench = bench_with_limits(1, limits, &backend.clone(), Arc::new(backend));
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let later = Instant::now() + Duration::from_secs(3600);
    // Queued, or refused at once where this took too long.
    let waiting = [bench.ask(&[2], None).await, bench.ask(&[3], Some(later)).await];
    tokio::time::sleep(OBJECTIVE).await;
    drop(open);
    first.await.unwrap().unwrap();
    for late in waiting {
        let error = late.await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Overloaded, "{error}");
        assert!(error.retry_after().is_some_and(|delay| delay > Duration::ZERO));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_runs_what_is_queued_and_refuses_what_comes() {
    let (behaviour, open) = gated();
    let bench = bench(1, 16, behaviour);
    let first = bench.ask(&[1], None).await;
    bench.wait_for_pending(0).await;
    let queued = [bench.ask(&[2], None).await, bench.ask(&[3], None).await];
    bench.wait_for_pending(2).await;
    bench.scheduler.close();
    let error = bench.scheduler.infer(request(&[4]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    drop(open);
    let scheduler = Arc::clone(&bench.scheduler);
    tokio::task::spawn_blocking(move || scheduler.stop()).await.unwrap();
    assert!(lock(&bench.scheduler.threads).is_empty());
    assert_eq!(first.await.unwrap().unwrap(), [1]);
    for (asked, rows) in queued.into_iter().zip([[2], [3]]) {
        assert_eq!(asked.await.unwrap().unwrap(), rows);
    }
    assert_eq!(lock(&bench.recorder.batches)[1].closed, CloseReason::Drain);
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_counted_and_not_queued() {
    let bench = bench(1, 16, SimulatedBackend::echo);
    let error = bench.scheduler.infer(request(&[0; 9]), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidInput);
    assert_eq!(*lock(&bench.recorder.failed), [ErrorCode::InvalidInput]);
    assert!(lock(&bench.recorder.batches).is_empty());
}

mod accelerator;
mod failures;
mod fairness;
mod gpus;
mod hang_ups;
mod lanes;
mod lost;
mod memory;
