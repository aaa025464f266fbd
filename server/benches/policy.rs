//! What a decision of the batching policy costs, with few and with many requests queued.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model_serving::scheduler::policy::{BatchPolicy, Job, PolicyLimits};
use model_serving::scheduler::{InferenceRequest, LatencyProfile};

/// Rows of a full batch.
const BATCH: usize = 32;

/// A request as large as those of the server.
struct Queued {
    deadline: Duration,
    _request: InferenceRequest,
}

impl Job for Queued {
    fn rows(&self) -> usize {
        1
    }
    fn deadline(&self) -> Option<Duration> {
        Some(self.deadline)
    }
    fn has_own_deadline(&self) -> bool {
        true
    }
    fn priority(&self) -> u32 {
        0
    }
    fn is_abandoned(&self) -> bool {
        false
    }
    fn batches_with(&self, _: &Self) -> bool {
        true
    }
}

/// A device of 1.2 + 0.12 b ms with so many requests queued, in invented time.
struct Server {
    policy: BatchPolicy<Queued>,
    now: Duration,
    count: u64,
    mixed: bool,
}

impl Server {
    fn new(queued: usize, mixed: bool) -> Self {
        let profile = [1, 2, 4, 8, 16, 32].map(|rows| (rows, Self::takes(rows)));
        let policy = BatchPolicy::new(PolicyLimits::new(BATCH, 1), LatencyProfile::new(profile).into());
        let mut server = Self { policy, now: Duration::ZERO, count: 0, mixed };
        for _ in 0..queued {
            server.submit();
        }
        server
    }

    fn takes(rows: usize) -> Duration {
        Duration::from_micros(1200 + 120 * rows as u64)
    }

    fn submit(&mut self) {
        self.count += 1;
        // Deadlines far enough that nobody is refused: all the same, or three kinds that mix.
        let patience = if self.mixed { 6 + self.count % 3 } else { 8 };
        let deadline = self.now + Duration::from_secs(patience);
        let accepted =
            self.policy.submit(self.now, Queued { deadline, _request: InferenceRequest::default() });
        assert!(accepted.is_ok(), "the benchmark is of accepted requests");
    }

    /// A batch's worth of requests come, a batch runs.
    fn turn(&mut self) -> usize {
        for _ in 0..BATCH {
            self.submit();
        }
        let batch = self.policy.dispatch(self.now).batch.expect("requests are queued");
        self.now += Self::takes(batch.rows);
        self.policy.completed(self.now, batch.id, Some(Self::takes(batch.rows)));
        batch.jobs.len()
    }
}

fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, mixed) in [("same deadlines", false), ("mixed deadlines", true)] {
        for queued in [0, 1_000, 10_000] {
            group.bench_function(BenchmarkId::new(name, queued), |bencher| {
                let mut server = Server::new(queued, mixed);
                bencher.iter(|| black_box(server.turn()));
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    for queued in [1_000, 10_000] {
        group.bench_function(BenchmarkId::new("refusal", queued), |bencher| {
            let mut server = Server::new(queued, false);
            server.policy.dispatch(server.now);
            let deadline = server.now + Duration::from_millis(100);
            let late = server.now + Duration::from_millis(8_001);
            bencher.iter(|| {
                black_box(server.policy.would_refuse(server.now, 1, Some(deadline)));
                black_box(server.policy.would_refuse(server.now, 1, Some(late)))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, policy);
criterion_main!(benches);
