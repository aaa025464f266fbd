//! Who is told what one version does: its statistics, and whoever observes the server.

use std::sync::Arc;
use std::time::Duration;

use service_kit::ErrorCode;

use super::statistics::VersionStatistics;
use crate::backend::ExecutionProvider;
use crate::scheduler::{
    BatchReport, DeadWork, ModelLabels, RefusalReason, RequestReport, ServingObserver, Stage,
};

/// Tells a version's statistics, then the server's observer.
pub(crate) struct VersionObserver {
    statistics: Arc<VersionStatistics>,
    observer: Arc<dyn ServingObserver>,
}

impl VersionObserver {
    pub(crate) fn new(
        statistics: Arc<VersionStatistics>,
        observer: Arc<dyn ServingObserver>,
        model: &str,
        version: &str,
    ) -> Self {
        let observer = observer.of_version(ModelLabels { model, version }).unwrap_or(observer);
        statistics.tell(&observer);
        Self { statistics, observer }
    }
}

impl ServingObserver for VersionObserver {
    fn request_succeeded(&self, labels: ModelLabels<'_>, report: &RequestReport) {
        self.statistics.succeeded(report);
        self.observer.request_succeeded(labels, report);
    }

    // Failures are counted for the statistics where their durations are known: in `ModelVersion::infer`.
    fn request_failed(&self, labels: ModelLabels<'_>, code: ErrorCode) {
        self.observer.request_failed(labels, code);
    }

    // Told by whoever stopped waiting, in `ModelVersion::infer`: so each request counts once, wherever it was then.
    fn request_abandoned(&self, _: ModelLabels<'_>) {}

    fn batch_executed(&self, labels: ModelLabels<'_>, report: &BatchReport) {
        self.statistics.executed(report);
        self.observer.batch_executed(labels, report);
    }

    fn pending_requests(&self, labels: ModelLabels<'_>, count: usize) {
        self.observer.pending_requests(labels, count);
    }

    fn placed(&self, labels: ModelLabels<'_>, provider: ExecutionProvider, fell_back: bool) {
        self.observer.placed(labels, provider, fell_back);
    }

    fn request_refused(&self, labels: ModelLabels<'_>, reason: RefusalReason, stage: Stage) {
        self.observer.request_refused(labels, reason, stage);
    }

    fn work_wasted(&self, labels: ModelLabels<'_>, why: DeadWork, rows: usize, compute: Duration) {
        self.observer.work_wasted(labels, why, rows, compute);
    }

    fn objective(&self, labels: ModelLabels<'_>, configured: Option<Duration>, effective: Option<Duration>) {
        self.observer.objective(labels, configured, effective);
    }
}
