//! What an operator's monitoring sees of the store. Prometheus' names and units.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The store's metrics, in a registry of their own.
#[derive(Debug)]
pub(super) struct StoreMetrics {
    pub(super) registry: Registry,
    /// By outcome: stored, repeated, exists, erased, failed, refused.
    pub(super) predictions: IntCounterVec,
    pub(super) commit_size: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) queued_writes: IntGauge,
    pub(super) queued_reads: IntGauge,
    pub(super) wal_bytes: IntGauge,
    pub(super) database_bytes: IntGauge,
    pub(super) erasures: IntCounter,
    pub(super) erasures_pending: IntGauge,
    pub(super) retired: IntCounter,
    pub(super) scrub_step_seconds: Histogram,
    pub(super) backups: IntCounter,
    pub(super) backup_seconds: Gauge,
}

impl StoreMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        // 125 µs to 4 s.
        let seconds = || prometheus::exponential_buckets(0.000_125, 2.0, 16);
        let predictions = IntCounterVec::new(
            Opts::new(
                "convoy_results_predictions_total",
                "Predictions that were sent to be stored, by outcome.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(predictions.clone()))?;
        let backup_seconds =
            Gauge::new("convoy_results_last_backup_seconds", "How long the last backup took.")?;
        registry.register(Box::new(backup_seconds.clone()))?;
        Ok(Self {
            predictions,
            commit_size: histogram(
                "convoy_results_commit_predictions",
                "Predictions that shared one transaction and its sync.",
                prometheus::exponential_buckets(1.0, 2.0, 12)?,
            )?,
            commit_seconds: histogram(
                "convoy_results_commit_seconds",
                "Time of one transaction with its sync.",
                seconds()?,
            )?,
            queued_writes: gauge("convoy_results_queued_writes", "Writes that wait for the writer.")?,
            queued_reads: gauge("convoy_results_queued_reads", "Reads that wait for a reader.")?,
            wal_bytes: gauge("convoy_results_wal_bytes", "Size of the write-ahead log.")?,
            database_bytes: gauge("convoy_results_database_bytes", "Size of the database file.")?,
            erasures: counter("convoy_results_erasures_total", "Erasures that are done.")?,
            erasures_pending: gauge(
                "convoy_results_erasures_pending",
                "Erasures that were begun and are not done.",
            )?,
            retired: counter(
                "convoy_results_retired_predictions_total",
                "Predictions that were deleted because they were past the retention period.",
            )?,
            scrub_step_seconds: histogram(
                "convoy_results_scrub_step_seconds",
                "Time that one step of a scrub kept writers waiting.",
                seconds()?,
            )?,
            backups: counter("convoy_results_backups_total", "Backups that were made.")?,
            backup_seconds,
            registry,
        })
    }

    pub(super) fn count(&self, outcome: &str, predictions: usize) {
        self.predictions.with_label_values(&[outcome]).inc_by(predictions as u64);
    }
}
