//! Metrics for Prometheus, in a registry of ours: under Triton's names what Triton counts, with Triton's meaning,
//! and under `convoy_` what it does not.
//!
//! Triton's durations are sums over requests: each request of a batch adds the whole batch's compute times.

use crate::scheduler::{BatchReport, ModelLabels, RequestReport, ServingObserver};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use sandbox::SandboxError;
use service_kit::ErrorCode;
use std::time::Duration;

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const MODEL: [&str; 2] = ["model", "version"];

/// Every metric of model-serving.
pub(crate) struct Metrics {
    registry: Registry,
    success: IntCounterVec,
    failure: IntCounterVec,
    inferences: IntCounterVec,
    executions: IntCounterVec,
    pending: IntGaugeVec,
    request_us: IntCounterVec,
    queue_us: IntCounterVec,
    compute_input_us: IntCounterVec,
    compute_infer_us: IntCounterVec,
    compute_output_us: IntCounterVec,
    queue_seconds: HistogramVec,
    compute_seconds: HistogramVec,
    batch_rows: HistogramVec,
    batches_closed: IntCounterVec,
    sandbox_images: IntCounterVec,
}

impl Metrics {
    /// All metrics, at zero, in a registry of their own.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name, help, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let histogram = |name, help, buckets: Vec<f64>| {
            let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &MODEL)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let pending = IntGaugeVec::new(
            Opts::new(
                "nv_inference_pending_request_count",
                "Instantaneous number of requests waiting for execution",
            ),
            &MODEL,
        )?;
        registry.register(Box::new(pending.clone()))?;
        // 1 ms to 8.2 s, and 1 to 1024 rows, each bucket twice the one before.
        let seconds = || prometheus::exponential_buckets(0.001, 2.0, 14);
        let rows = || prometheus::exponential_buckets(1.0, 2.0, 11);
        Ok(Self {
            success: counter(
                "nv_inference_request_success",
                "Number of successful inference requests, all batch sizes",
                &MODEL,
            )?,
            failure: counter(
                "nv_inference_request_failure",
                "Number of failed inference requests, all batch sizes, by reason",
                &["model", "version", "reason"],
            )?,
            inferences: counter(
                "nv_inference_count",
                "Number of inferences performed (a batch of n rows counts n)",
                &MODEL,
            )?,
            executions: counter("nv_inference_exec_count", "Number of model executions performed", &MODEL)?,
            pending,
            request_us: counter(
                "nv_inference_request_duration_us",
                "Cumulative inference request duration in microseconds",
                &MODEL,
            )?,
            queue_us: counter(
                "nv_inference_queue_duration_us",
                "Cumulative inference queuing duration in microseconds",
                &MODEL,
            )?,
            compute_input_us: counter(
                "nv_inference_compute_input_duration_us",
                "Cumulative compute input duration in microseconds",
                &MODEL,
            )?,
            compute_infer_us: counter(
                "nv_inference_compute_infer_duration_us",
                "Cumulative compute inference duration in microseconds",
                &MODEL,
            )?,
            compute_output_us: counter(
                "nv_inference_compute_output_duration_us",
                "Cumulative compute output duration in microseconds",
                &MODEL,
            )?,
            queue_seconds: histogram(
                "convoy_queue_duration_seconds",
                "Time answered requests waited in the queue, in seconds",
                seconds()?,
            )?,
            compute_seconds: histogram(
                "convoy_execution_duration_seconds",
                "Time batches took in the model, in seconds",
                seconds()?,
            )?,
            batch_rows: histogram("convoy_batch_size_rows", "Rows in executed batches", rows()?)?,
            batches_closed: counter(
                "convoy_batches_closed_total",
                "Executed batches by why they were closed",
                &["model", "version", "reason"],
            )?,
            sandbox_images: counter(
                "convoy_sandbox_images_total",
                "Images given to the sandbox by its verdict",
                &["verdict"],
            )?,
            registry,
        })
    }

    /// Everything in Prometheus's text format.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Makes the series of a model appear at zero, so that a rate over them is right from the first request.
    pub(crate) fn model_loaded(&self, labels: ModelLabels<'_>) {
        let labels = [labels.model, labels.version];
        for counter in [
            &self.success,
            &self.inferences,
            &self.executions,
            &self.request_us,
            &self.queue_us,
            &self.compute_input_us,
            &self.compute_infer_us,
            &self.compute_output_us,
        ] {
            counter.with_label_values(&labels);
        }
        for reason in FailureReason::ALL {
            self.failure.with_label_values(&[labels[0], labels[1], reason.as_str()]);
        }
        self.pending.with_label_values(&labels);
        for histogram in [&self.queue_seconds, &self.compute_seconds, &self.batch_rows] {
            histogram.with_label_values(&labels);
        }
    }

    /// Counts an image that the sandbox was given.
    pub(crate) fn image_seen<T>(&self, result: &Result<T, SandboxError>) {
        let verdict = result.as_ref().err().map_or("accepted", verdict);
        self.sandbox_images.with_label_values(&[verdict]).inc();
    }

    fn failed(&self, labels: ModelLabels<'_>, reason: FailureReason) {
        self.failure.with_label_values(&[labels.model, labels.version, reason.as_str()]).inc();
    }
}

impl ServingObserver for Metrics {
    fn request_succeeded(&self, labels: ModelLabels<'_>, report: &RequestReport) {
        let labels = [labels.model, labels.version];
        self.success.with_label_values(&labels).inc();
        for (counter, duration) in [
            (&self.request_us, report.total),
            (&self.queue_us, report.queue),
            (&self.compute_input_us, report.compute_input),
            (&self.compute_infer_us, report.compute_infer),
            (&self.compute_output_us, report.compute_output),
        ] {
            counter.with_label_values(&labels).inc_by(microseconds(duration));
        }
        self.queue_seconds.with_label_values(&labels).observe(report.queue.as_secs_f64());
    }

    fn request_failed(&self, labels: ModelLabels<'_>, code: ErrorCode) {
        self.failed(labels, FailureReason::of(code));
    }

    fn request_abandoned(&self, labels: ModelLabels<'_>) {
        self.failed(labels, FailureReason::Canceled);
    }

    fn batch_executed(&self, labels: ModelLabels<'_>, report: &BatchReport) {
        let closed = [labels.model, labels.version, report.closed.as_str()];
        self.batches_closed.with_label_values(&closed).inc();
        let labels = [labels.model, labels.version];
        self.compute_seconds.with_label_values(&labels).observe(report.duration.as_secs_f64());
        self.batch_rows.with_label_values(&labels).observe(report.rows as f64);
        // Triton counts what gave a result.
        if report.succeeded {
            self.inferences.with_label_values(&labels).inc_by(report.rows as u64);
            self.executions.with_label_values(&labels).inc();
        }
    }

    fn pending_requests(&self, labels: ModelLabels<'_>, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.pending.with_label_values(&[labels.model, labels.version]).set(count);
    }
}

/// Triton's values of the label `reason`.
#[derive(Clone, Copy)]
enum FailureReason {
    /// The scheduler did not run it: its queue was full, or its time ran out there.
    Rejected,
    /// The caller went away.
    Canceled,
    /// The model failed.
    Backend,
    /// Anything else, such as a request that does not fit the model.
    Other,
}

impl FailureReason {
    const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }

    const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Overloaded | ErrorCode::DeadlineExceeded | ErrorCode::Unavailable => Self::Rejected,
            ErrorCode::Internal => Self::Backend,
            ErrorCode::InvalidInput
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::TooLarge => Self::Other,
        }
    }
}

fn verdict(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::Empty => "empty",
        SandboxError::NotAnImage => "not_an_image",
        SandboxError::UnsupportedFormat { .. } => "unsupported_format",
        SandboxError::Truncated { .. } => "truncated",
        SandboxError::Corrupt { .. } => "corrupt",
        SandboxError::TooManyPixels { .. } => "too_many_pixels",
        SandboxError::TooLarge { .. } => "too_large",
        SandboxError::InvalidOptions { .. } => "invalid_options",
        SandboxError::OutOfMemory { .. } => "out_of_memory",
        SandboxError::OutOfTime { .. } => "out_of_time",
        SandboxError::DeadlineExceeded => "deadline_exceeded",
        SandboxError::Trapped { .. } => "trapped",
        SandboxError::Busy { .. } => "busy",
        SandboxError::Stopped => "stopped",
        SandboxError::Component { .. } => "component",
        // The enum is open to additions.
        _ => "other",
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::scheduler::CloseReason;

    const LABELS: ModelLabels<'static> = ModelLabels { model: "m", version: "1" };

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn two_requests_in_one_batch_count_as_triton_counts_them() {
        let metrics = Metrics::new().unwrap();
        let ms = Duration::from_millis;
        let request = RequestReport {
            rows: 2,
            total: ms(12),
            queue: ms(1),
            compute_input: ms(1),
            compute_infer: ms(9),
            compute_output: ms(1),
        };
        metrics.batch_executed(
            LABELS,
            &BatchReport {
                lane: crate::scheduler::Lane::Narrow,
                rows: 4,
                requests: 2,
                closed: CloseReason::Queue,
                expected: ms(9),
                compute_input: ms(1),
                duration: ms(9),
                compute_output: ms(1),
                succeeded: true,
            },
        );
        metrics.request_succeeded(LABELS, &request);
        metrics.request_succeeded(LABELS, &request);
        let text = text(&metrics);
        for line in [
            r#"nv_inference_request_success{model="m",version="1"} 2"#,
            r#"nv_inference_count{model="m",version="1"} 4"#,
            r#"nv_inference_exec_count{model="m",version="1"} 1"#,
            r#"nv_inference_request_duration_us{model="m",version="1"} 24000"#,
            r#"nv_inference_queue_duration_us{model="m",version="1"} 2000"#,
            r#"nv_inference_compute_infer_duration_us{model="m",version="1"} 18000"#,
            r#"convoy_batch_size_rows_sum{model="m",version="1"} 4"#,
            r#"convoy_queue_duration_seconds_count{model="m",version="1"} 2"#,
            r#"convoy_batches_closed_total{model="m",reason="queue",version="1"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn failures_have_tritons_reasons() {
        let metrics = Metrics::new().unwrap();
        metrics.model_loaded(LABELS);
        let reason = |reason, n| {
            format!(r#"nv_inference_request_failure{{model="m",reason="{reason}",version="1"}} {n}"#)
        };
        assert!(text(&metrics).contains(&reason("REJECTED", 0)), "there from the start");
        metrics.request_failed(LABELS, ErrorCode::Overloaded);
        metrics.request_failed(LABELS, ErrorCode::Internal);
        metrics.request_failed(LABELS, ErrorCode::InvalidInput);
        metrics.request_abandoned(LABELS);
        metrics.pending_requests(LABELS, 3);
        metrics.image_seen::<()>(&Err(SandboxError::NotAnImage));
        let text = text(&metrics);
        for each in ["REJECTED", "BACKEND", "OTHER", "CANCELED"] {
            assert!(text.contains(&reason(each, 1)), "{each} is not 1 in\n{text}");
        }
        assert!(text.contains(r#"nv_inference_pending_request_count{model="m",version="1"} 3"#));
        assert!(text.contains(r#"convoy_sandbox_images_total{verdict="not_an_image"} 1"#));
    }

    #[test]
    fn two_servers_in_one_process_do_not_share_counts() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.image_seen(&Ok(()));
        assert!(text(&one).contains("accepted"));
        assert!(!text(&other).contains("accepted"));
    }
}
