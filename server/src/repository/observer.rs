//! Who is told what one version does: its statistics, and whoever observes the server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use service_kit::{ErrorCode, Hold, Readiness};

use super::statistics::VersionStatistics;
use crate::backend::{ExecutionProvider, ProviderNodes};
use crate::scheduler::{
    BatchReport, BrokenInstances, DeadWork, ModelLabels, RefusalReason, RequestReport, ServingObserver,
    Stage, lock,
};

/// Who is told what versions do.
pub(crate) struct Watchers {
    /// The server's observer.
    pub(crate) observer: Arc<dyn ServingObserver>,
    /// Held while nothing of the version can be run; `None`: the server is ready without it.
    pub(crate) readiness: Option<Readiness>,
}

/// Tells a version's statistics, then the server's observer, and its readiness.
pub(crate) struct VersionObserver {
    statistics: Arc<VersionStatistics>,
    observer: Arc<dyn ServingObserver>,
    readiness: Option<Readiness>,
    /// There while no instance works. It ends with the version: who replaces it, or unloads it, has mended that.
    hold: Mutex<Option<Hold>>,
}

impl VersionObserver {
    pub(crate) fn new(
        statistics: Arc<VersionStatistics>,
        Watchers { observer, readiness }: Watchers,
        model: &str,
        version: &str,
    ) -> Self {
        let observer = observer.of_version(ModelLabels { model, version }).unwrap_or(observer);
        statistics.tell(&observer);
        Self { statistics, observer, readiness, hold: Mutex::default() }
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

    fn batch_limit(&self, labels: ModelLabels<'_>, rows: usize) {
        self.observer.batch_limit(labels, rows);
    }

    fn placed_nodes(&self, labels: ModelLabels<'_>, nodes: &[ProviderNodes]) {
        self.observer.placed_nodes(labels, nodes);
    }

    fn request_refused(&self, labels: ModelLabels<'_>, reason: RefusalReason, stage: Stage) {
        self.observer.request_refused(labels, reason, stage);
    }

    fn work_wasted(&self, labels: ModelLabels<'_>, why: DeadWork, rows: usize, compute: Duration) {
        self.observer.work_wasted(labels, why, rows, compute);
    }

    fn instances_broken(&self, labels: ModelLabels<'_>, broken: &BrokenInstances) {
        let held = broken.is_all().then_some(self.readiness.as_ref()).flatten();
        *lock(&self.hold) = held.map(|readiness| {
            readiness.hold(format!("model {}, version {}: {broken}", labels.model, labels.version))
        });
        self.observer.instances_broken(labels, broken);
    }

    fn objective(&self, labels: ModelLabels<'_>, configured: Option<Duration>, effective: Option<Duration>) {
        self.observer.objective(labels, configured, effective);
    }
}
