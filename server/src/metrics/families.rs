//! The metrics with a series for each model version.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::Mutex;

/// Labels of every metric here; some have more behind these.
const MODEL: [&str; 2] = ["model", "version"];

/// Metrics by model version.
pub(super) struct Families {
    pub(super) success: IntCounterVec,
    /// Besides: `reason`.
    pub(super) failure: IntCounterVec,
    pub(super) inferences: IntCounterVec,
    pub(super) executions: IntCounterVec,
    pub(super) pending: IntGaugeVec,
    pub(super) request_us: IntCounterVec,
    pub(super) queue_us: IntCounterVec,
    pub(super) compute_input_us: IntCounterVec,
    pub(super) compute_infer_us: IntCounterVec,
    pub(super) compute_output_us: IntCounterVec,
    pub(super) request_seconds: HistogramVec,
    pub(super) queue_seconds: HistogramVec,
    pub(super) compute_input_seconds: HistogramVec,
    pub(super) compute_infer_seconds: HistogramVec,
    pub(super) compute_output_seconds: HistogramVec,
    pub(super) batch_rows: HistogramVec,
    /// Besides: `reason`, `lane`.
    pub(super) batches_closed: IntCounterVec,
    pub(super) prediction_ratio: HistogramVec,
    /// Besides: `reason`, `stage`.
    pub(super) refused: IntCounterVec,
    /// Besides: `reason`.
    pub(super) dead_rows: IntCounterVec,
    /// Besides: `reason`.
    pub(super) dead_seconds: CounterVec,
    /// Besides: `provider`, `fallback`.
    pub(super) execution_provider: IntGaugeVec,
    pub(super) broken: IntGaugeVec,
    /// Besides: `provider`, by ONNX Runtime's name.
    pub(super) nodes: IntGaugeVec,
    pub(super) batch_limit: IntGaugeVec,
    pub(super) objective: GaugeVec,
    pub(super) configured_objective: GaugeVec,
    /// How many loaded versions have the same labels: while a version is loaded again there are two for a while.
    pub(super) users: Mutex<HashMap<[String; 2], usize>>,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        fn add<M: Collector + Clone + 'static>(
            registry: &Registry,
            metric: M,
        ) -> Result<M, prometheus::Error> {
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        }
        let labels = |more: &[&'static str]| [&MODEL, more].concat();
        let counter = |name, help, more: &[&'static str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), &labels(more))?)
        };
        let gauge = |name, help| add(registry, GaugeVec::new(Opts::new(name, help), &MODEL)?);
        let histogram = |name, help, buckets: Vec<f64>| {
            add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &MODEL)?)
        };
        let pending = Opts::new(
            "nv_inference_pending_request_count",
            "Instantaneous number of requests waiting for execution",
        );
        let provider = Opts::new(
            "convoy_model_execution_provider",
            "1 for what the model runs on; fallback: whether that is because it could not run on a GPU",
        );
        let broken = Opts::new(
            "convoy_instances_broken",
            "Instances of the model that failed and could not be made anew; they are tried again",
        );
        let nodes = Opts::new(
            "convoy_model_nodes",
            "Nodes of the model's optimized graph by the execution provider of ONNX Runtime that runs them",
        );
        let batch_limit = Opts::new(
            "convoy_max_batch_rows",
            "Rows that a batch may have: the model's max_batch_size, or what the device has memory for",
        );
        let dead_seconds = Opts::new(
            "convoy_dead_work_seconds_total",
            "Time in the model, in seconds, that was spent on rows for nobody",
        );
        // Each bucket twice the one before: 0.1 ms to 3.3 s; 0.01 ms to 0.3 s; 1 to 1024 rows.
        let long = || prometheus::exponential_buckets(0.0001, 2.0, 16);
        let short = || prometheus::exponential_buckets(0.00001, 2.0, 16);
        let rows = prometheus::exponential_buckets(1.0, 2.0, 11)?;
        let ratios = vec![0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0];
        Ok(Self {
            success: counter(
                "nv_inference_request_success",
                "Number of successful inference requests, all batch sizes",
                &[],
            )?,
            failure: counter(
                "nv_inference_request_failure",
                "Number of failed inference requests, all batch sizes, by reason",
                &["reason"],
            )?,
            inferences: counter(
                "nv_inference_count",
                "Number of inferences performed (a successful request of n rows counts n)",
                &[],
            )?,
            executions: counter("nv_inference_exec_count", "Number of model executions performed", &[])?,
            pending: add(registry, IntGaugeVec::new(pending, &MODEL)?)?,
            request_us: counter(
                "nv_inference_request_duration_us",
                "Cumulative inference request duration in microseconds",
                &[],
            )?,
            queue_us: counter(
                "nv_inference_queue_duration_us",
                "Cumulative inference queuing duration in microseconds",
                &[],
            )?,
            compute_input_us: counter(
                "nv_inference_compute_input_duration_us",
                "Cumulative compute input duration in microseconds",
                &[],
            )?,
            compute_infer_us: counter(
                "nv_inference_compute_infer_duration_us",
                "Cumulative compute inference duration in microseconds",
                &[],
            )?,
            compute_output_us: counter(
                "nv_inference_compute_output_duration_us",
                "Cumulative compute output duration in microseconds",
                &[],
            )?,
            request_seconds: histogram(
                "convoy_request_duration_seconds",
                "Time from the arrival of a successful request in the queue to its answer, in seconds",
                long()?,
            )?,
            queue_seconds: histogram(
                "convoy_queue_duration_seconds",
                "Time successful requests waited in the queue, in seconds",
                long()?,
            )?,
            compute_input_seconds: histogram(
                "convoy_compute_input_duration_seconds",
                "Time batches took to be written, in seconds",
                short()?,
            )?,
            compute_infer_seconds: histogram(
                "convoy_compute_infer_duration_seconds",
                "Time batches took in the model, in seconds",
                long()?,
            )?,
            compute_output_seconds: histogram(
                "convoy_compute_output_duration_seconds",
                "Time the outputs of batches took to be split, in seconds",
                short()?,
            )?,
            batch_rows: histogram("convoy_batch_size_rows", "Rows in executed batches", rows)?,
            batches_closed: counter(
                "convoy_batches_closed_total",
                "Executed batches by why they were closed, and by what they ran on",
                &["reason", "lane"],
            )?,
            prediction_ratio: histogram(
                "convoy_prediction_ratio",
                "Time batches took in the model, as a multiple of what was predicted when they were closed",
                ratios,
            )?,
            refused: counter(
                "convoy_requests_refused_total",
                "Requests that were not executed, by why and by where they were",
                &["reason", "stage"],
            )?,
            dead_rows: counter(
                "convoy_dead_work_rows_total",
                "Rows that were executed for nobody, by why",
                &["reason"],
            )?,
            dead_seconds: add(registry, CounterVec::new(dead_seconds, &labels(&["reason"]))?)?,
            execution_provider: add(
                registry,
                IntGaugeVec::new(provider, &labels(&["provider", "fallback"]))?,
            )?,
            broken: add(registry, IntGaugeVec::new(broken, &MODEL)?)?,
            batch_limit: add(registry, IntGaugeVec::new(batch_limit, &labels(&[]))?)?,
            nodes: add(registry, IntGaugeVec::new(nodes, &labels(&["provider"]))?)?,
            objective: gauge(
                "convoy_latency_objective_seconds",
                "Latency objective that is kept, in seconds; absent when only callers' deadlines count",
            )?,
            configured_objective: gauge(
                "convoy_latency_objective_configured_seconds",
                "Latency objective that was configured, in seconds; absent when only callers' deadlines count",
            )?,
            users: Mutex::default(),
        })
    }
}
