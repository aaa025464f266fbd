//! What a model version has done since it was loaded, in Triton's terms: the numbers of `ModelStatistics`.
//!
//! Durations of requests are sums over requests: each request of a batch adds the whole batch's compute times.
//! Durations by batch size are sums over executions.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use service_kit::ErrorCode;

use crate::scheduler::{BatchReport, ModelLabels, RequestReport, ServingObserver, lock};

/// How often something happened, and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl StatisticDuration {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Durations of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferStatistics {
    /// Requests that got a result, from their arrival in the queue to their answer.
    pub success: StatisticDuration,
    /// Requests that did not: refused, expired, failed, or given up by their caller.
    pub fail: StatisticDuration,
    /// Of successful requests: waiting in the queue.
    pub queue: StatisticDuration,
    /// Of successful requests: their batch being written.
    pub compute_input: StatisticDuration,
    /// Of successful requests: their batch in the model.
    pub compute_infer: StatisticDuration,
    /// Of successful requests: their batch's outputs being split.
    pub compute_output: StatisticDuration,
}

/// Durations of the executions of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows of the batch.
    pub batch_size: u64,
    /// The batch being written.
    pub compute_input: StatisticDuration,
    /// The batch in the model.
    pub compute_infer: StatisticDuration,
    /// The batch's outputs being split.
    pub compute_output: StatisticDuration,
}

/// What one version of a model has done since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatistics {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When the last request was executed, in milliseconds since 1970; 0 before the first.
    pub last_inference: u64,
    /// Rows of the requests that got a result.
    pub inference_count: u64,
    /// Batches that gave a result.
    pub execution_count: u64,
    /// Durations of requests.
    pub inference_stats: InferStatistics,
    /// Durations of executions, by batch size, for the sizes that were executed.
    pub batch_stats: Vec<BatchStatistics>,
}

/// Where a version's statistics are gathered.
pub(crate) struct VersionStatistics {
    gathered: Mutex<Gathered>,
    /// Who is told of failures that the scheduler does not see. It ends with the scheduler.
    observer: OnceLock<Weak<dyn ServingObserver>>,
}

#[derive(Debug)]
struct Gathered {
    last_inference: u64,
    inferences: u64,
    executions: u64,
    requests: InferStatistics,
    /// By rows; there from the start, so that nothing is allocated when a batch is reported.
    batches: Vec<BatchStatistics>,
}

impl VersionStatistics {
    /// Statistics at zero, for batches of up to `max_batch_size` rows.
    pub(crate) fn new(max_batch_size: usize) -> Self {
        let batches = (0..=max_batch_size.max(1))
            .map(|rows| BatchStatistics { batch_size: rows as u64, ..BatchStatistics::default() })
            .collect();
        let gathered = Gathered {
            last_inference: 0,
            inferences: 0,
            executions: 0,
            requests: InferStatistics::default(),
            batches,
        };
        Self { gathered: Mutex::new(gathered), observer: OnceLock::new() }
    }

    pub(crate) fn succeeded(&self, report: &RequestReport) {
        let mut gathered = lock(&self.gathered);
        gathered.inferences += report.rows as u64;
        let requests = &mut gathered.requests;
        requests.success.add(report.total);
        requests.queue.add(report.queue);
        requests.compute_input.add(report.compute_input);
        requests.compute_infer.add(report.compute_infer);
        requests.compute_output.add(report.compute_output);
    }

    /// Tells `observer` from now on; only the first one.
    pub(crate) fn tell(&self, observer: &Arc<dyn ServingObserver>) {
        let _ = self.observer.set(Arc::downgrade(observer));
    }

    /// A request's caller gave up, `after` this long.
    pub(crate) fn abandoned(&self, labels: ModelLabels<'_>, after: Duration) {
        self.failed(after);
        if let Some(observer) = self.observer.get().and_then(Weak::upgrade) {
            observer.request_abandoned(labels);
        }
    }

    /// A request was answered with an error of this code that the scheduler knows nothing of.
    pub(crate) fn failed_elsewhere(&self, labels: ModelLabels<'_>, code: ErrorCode) {
        self.failed(Duration::ZERO);
        if let Some(observer) = self.observer.get().and_then(Weak::upgrade) {
            observer.request_failed_elsewhere(labels, code);
        }
    }

    /// A request got no result, `after` this long.
    pub(crate) fn failed(&self, after: Duration) {
        lock(&self.gathered).requests.fail.add(after);
    }

    pub(crate) fn executed(&self, report: &BatchReport) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut gathered = lock(&self.gathered);
        gathered.last_inference = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if !report.succeeded {
            return;
        }
        gathered.executions += 1;
        if let Some(batch) = gathered.batches.get_mut(report.rows) {
            batch.compute_input.add(report.compute_input);
            batch.compute_infer.add(report.duration);
            batch.compute_output.add(report.compute_output);
        }
    }

    /// What was gathered so far.
    pub(crate) fn read(&self, name: &str, version: &str) -> ModelStatistics {
        let gathered = lock(&self.gathered);
        let executed = gathered.batches.iter().filter(|batch| batch.compute_infer.count > 0);
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_owned(),
            last_inference: gathered.last_inference,
            inference_count: gathered.inferences,
            execution_count: gathered.executions,
            inference_stats: gathered.requests,
            batch_stats: executed.copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
