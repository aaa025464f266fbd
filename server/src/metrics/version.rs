//! The series of one model version, held by heart: telling them takes no lookup and no allocation.
//!
//! They appear, at zero, when the version is loaded, so that a rate over them is right from the first request, and
//! disappear when it has been unloaded, as Triton's do. A version that is loaded again goes on with its counts.

use super::families::Families;
use super::{FailureReason, microseconds};
use crate::backend::{ExecutionProvider, ProviderNodes};
use crate::scheduler::{
    BatchReport, BrokenInstances, CloseReason, DeadWork, Lane, ModelLabels, RefusalReason, RequestReport,
    ServingObserver, Stage, lock,
};
use prometheus::{Counter, Histogram, IntCounter, IntGauge};
use service_kit::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// The series of one version.
pub(super) struct VersionMetrics {
    families: Arc<Families>,
    labels: [String; 2],
    success: IntCounter,
    failure: [IntCounter; FailureReason::ALL.len()],
    inferences: IntCounter,
    executions: IntCounter,
    pending: IntGauge,
    request_us: IntCounter,
    queue_us: IntCounter,
    compute_input_us: IntCounter,
    compute_infer_us: IntCounter,
    compute_output_us: IntCounter,
    request_seconds: Histogram,
    queue_seconds: Histogram,
    compute_input_seconds: Histogram,
    compute_infer_seconds: Histogram,
    compute_output_seconds: Histogram,
    batch_rows: Histogram,
    batches_closed: [[IntCounter; Lane::ALL.len()]; CloseReason::ALL.len()],
    prediction_ratio: Histogram,
    refused: [[IntCounter; Stage::ALL.len()]; RefusalReason::ALL.len()],
    broken: IntGauge,
    dead_rows: [IntCounter; DeadWork::ALL.len()],
    dead_seconds: [Counter; DeadWork::ALL.len()],
}

impl VersionMetrics {
    pub(super) fn new(families: &Arc<Families>, labels: ModelLabels<'_>) -> Self {
        let ModelLabels { model, version } = labels;
        // Under the lock, so that an end of the same version does not remove what is made here.
        let mut users = lock(&families.users);
        *users.entry([model.to_owned(), version.to_owned()]).or_default() += 1;
        let f = families;
        let one = [model, version];
        let broken = f.broken.with_label_values(&one);
        // The version before it may have been.
        broken.set(0);
        Self {
            broken,
            families: Arc::clone(families),
            labels: [model.to_owned(), version.to_owned()],
            success: f.success.with_label_values(&one),
            failure: FailureReason::ALL
                .map(|reason| f.failure.with_label_values(&[model, version, reason.as_str()])),
            inferences: f.inferences.with_label_values(&one),
            executions: f.executions.with_label_values(&one),
            pending: f.pending.with_label_values(&one),
            request_us: f.request_us.with_label_values(&one),
            queue_us: f.queue_us.with_label_values(&one),
            compute_input_us: f.compute_input_us.with_label_values(&one),
            compute_infer_us: f.compute_infer_us.with_label_values(&one),
            compute_output_us: f.compute_output_us.with_label_values(&one),
            request_seconds: f.request_seconds.with_label_values(&one),
            queue_seconds: f.queue_seconds.with_label_values(&one),
            compute_input_seconds: f.compute_input_seconds.with_label_values(&one),
            compute_infer_seconds: f.compute_infer_seconds.with_label_values(&one),
            compute_output_seconds: f.compute_output_seconds.with_label_values(&one),
            batch_rows: f.batch_rows.with_label_values(&one),
            batches_closed: CloseReason::ALL.map(|reason| {
                let values = |lane: Lane| [model, version, reason.as_str(), lane.as_str()];
                Lane::ALL.map(|lane| f.batches_closed.with_label_values(&values(lane)))
            }),
            prediction_ratio: f.prediction_ratio.with_label_values(&one),
            refused: RefusalReason::ALL.map(|reason| {
                let values = |stage: Stage| [model, version, reason.as_str(), stage.as_str()];
                Stage::ALL.map(|stage| f.refused.with_label_values(&values(stage)))
            }),
            dead_rows: DeadWork::ALL
                .map(|why| f.dead_rows.with_label_values(&[model, version, why.as_str()])),
            dead_seconds: DeadWork::ALL
                .map(|why| f.dead_seconds.with_label_values(&[model, version, why.as_str()])),
        }
    }
}

impl ServingObserver for VersionMetrics {
    fn request_succeeded(&self, _: ModelLabels<'_>, report: &RequestReport) {
        self.success.inc();
        // As Triton has it: rows that somebody got a result for.
        self.inferences.inc_by(report.rows as u64);
        self.request_us.inc_by(microseconds(report.total));
        self.queue_us.inc_by(microseconds(report.queue));
        self.compute_input_us.inc_by(microseconds(report.compute_input));
        self.compute_infer_us.inc_by(microseconds(report.compute_infer));
        self.compute_output_us.inc_by(microseconds(report.compute_output));
        self.request_seconds.observe(report.total.as_secs_f64());
        self.queue_seconds.observe(report.queue.as_secs_f64());
    }

    fn request_failed(&self, _: ModelLabels<'_>, code: ErrorCode) {
        self.failure[FailureReason::of(code) as usize].inc();
    }

    fn request_failed_elsewhere(&self, _: ModelLabels<'_>, code: ErrorCode) {
        let reason = match FailureReason::of(code) {
            // It was not the model that failed.
            FailureReason::Backend => FailureReason::Other,
            reason => reason,
        };
        self.failure[reason as usize].inc();
    }

    fn request_abandoned(&self, _: ModelLabels<'_>) {
        self.failure[FailureReason::Canceled as usize].inc();
    }

    fn batch_executed(&self, _: ModelLabels<'_>, report: &BatchReport) {
        self.batches_closed[report.closed as usize][report.lane as usize].inc();
        self.batch_rows.observe(report.rows as f64);
        self.compute_infer_seconds.observe(report.duration.as_secs_f64());
        // Triton counts what gave a result.
        if !report.succeeded {
            return;
        }
        self.executions.inc();
        self.compute_input_seconds.observe(report.compute_input.as_secs_f64());
        self.compute_output_seconds.observe(report.compute_output.as_secs_f64());
        if !report.expected.is_zero() {
            self.prediction_ratio.observe(report.duration.as_secs_f64() / report.expected.as_secs_f64());
        }
    }

    fn pending_requests(&self, _: ModelLabels<'_>, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn request_refused(&self, _: ModelLabels<'_>, reason: RefusalReason, stage: Stage) {
        self.refused[reason as usize][stage as usize].inc();
    }

    fn work_wasted(&self, _: ModelLabels<'_>, why: DeadWork, rows: usize, compute: Duration) {
        self.dead_rows[why as usize].inc_by(rows as u64);
        self.dead_seconds[why as usize].inc_by(compute.as_secs_f64());
    }

    fn instances_broken(&self, _: ModelLabels<'_>, broken: &BrokenInstances) {
        self.broken.set(i64::try_from(broken.count()).unwrap_or(i64::MAX));
    }

    fn placed(&self, _: ModelLabels<'_>, provider: ExecutionProvider, fell_back: bool) {
        let [model, version] = self.labels.each_ref().map(String::as_str);
        self.forget_placement();
        let values = [model, version, provider.as_str(), fallback_label(fell_back)];
        self.families.execution_provider.with_label_values(&values).set(1);
    }

    fn batch_limit(&self, _: ModelLabels<'_>, rows: usize) {
        let labels = self.labels.each_ref().map(String::as_str);
        self.families.batch_limit.with_label_values(&labels).set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    fn placed_nodes(&self, _: ModelLabels<'_>, nodes: &[ProviderNodes]) {
        let [model, version] = self.labels.each_ref().map(String::as_str);
        self.forget_nodes();
        for ProviderNodes { provider, nodes, .. } in nodes {
            let series = self.families.nodes.with_label_values(&[model, version, provider]);
            series.set(i64::try_from(*nodes).unwrap_or(i64::MAX));
        }
    }

    fn objective(&self, _: ModelLabels<'_>, configured: Option<Duration>, effective: Option<Duration>) {
        let labels = self.labels.each_ref().map(String::as_str);
        let families = &self.families;
        for (gauge, value) in [(&families.objective, effective), (&families.configured_objective, configured)]
        {
            match value {
                Some(value) => gauge.with_label_values(&labels).set(value.as_secs_f64()),
                // One that was never there cannot be removed.
                None => drop(gauge.remove_label_values(&labels)),
            }
        }
    }
}

impl VersionMetrics {
    fn forget_nodes(&self) {
        let [model, version] = self.labels.each_ref().map(String::as_str);
        for provider in ProviderNodes::PROVIDERS {
            drop(self.families.nodes.remove_label_values(&[model, version, provider]));
        }
    }

    fn forget_placement(&self) {
        let [model, version] = self.labels.each_ref().map(String::as_str);
        for provider in ExecutionProvider::ALL {
            for fell_back in [false, true] {
                let values = [model, version, provider.as_str(), fallback_label(fell_back)];
                drop(self.families.execution_provider.remove_label_values(&values));
            }
        }
    }
}

const fn fallback_label(fell_back: bool) -> &'static str {
    if fell_back { "true" } else { "false" }
}

impl Drop for VersionMetrics {
    fn drop(&mut self) {
        let f = &self.families;
        let mut users = lock(&f.users);
        if let Some(others) = users.get_mut(&self.labels).filter(|count| **count > 1) {
            *others -= 1;
            return;
        }
        users.remove(&self.labels);
        let [model, version] = self.labels.each_ref().map(String::as_str);
        let one = [model, version];
        // What is not there any more need not be removed: that is all that can go wrong.
        macro_rules! remove {
            ($($family:ident),*) => {
                $(drop(f.$family.remove_label_values(&one));)*
            };
        }
        remove!(success, inferences, executions, pending, batch_rows, batch_limit, prediction_ratio, broken);
        remove!(request_us, queue_us, compute_input_us, compute_infer_us, compute_output_us);
        remove!(request_seconds, queue_seconds, objective, configured_objective);
        remove!(compute_input_seconds, compute_infer_seconds, compute_output_seconds);
        self.forget_placement();
        self.forget_nodes();
        for reason in FailureReason::ALL {
            drop(f.failure.remove_label_values(&[model, version, reason.as_str()]));
        }
        for reason in CloseReason::ALL {
            for lane in Lane::ALL {
                let values = [model, version, reason.as_str(), lane.as_str()];
                drop(f.batches_closed.remove_label_values(&values));
            }
        }
        for reason in RefusalReason::ALL {
            for stage in Stage::ALL {
                let values = [model, version, reason.as_str(), stage.as_str()];
                drop(f.refused.remove_label_values(&values));
            }
        }
        for why in DeadWork::ALL {
            drop(f.dead_rows.remove_label_values(&[model, version, why.as_str()]));
            drop(f.dead_seconds.remove_label_values(&[model, version, why.as_str()]));
        }
    }
}
