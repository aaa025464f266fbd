//! The server's own policy, as it is.

use std::time::Duration;

use model_serving::scheduler::LatencyProfile;
use model_serving::scheduler::policy::{BatchPolicy, Job, PolicyLimits, RunId};

use super::MAX_BATCH;
use super::device::Device;
use super::engine::{Next, Policy, Request};

/// See the [module](self).
pub(crate) struct Convoy {
    policy: BatchPolicy<Request>,
    /// What runs, and since when.
    running: Vec<(RunId, Duration)>,
}

impl Convoy {
    /// The policy with the latency objective as its one knob, for a device that was measured at load; `told` is by
    /// how much the measurement is wrong.
    pub(crate) fn new(device: Device, objective: Duration, told: f64) -> Self {
        Self::with_lanes(1, device, objective, told)
    }

    /// As [`new`](Self::new), for several such devices.
    pub(crate) fn with_lanes(lanes: usize, device: Device, objective: Duration, told: f64) -> Self {
        let sizes = (0..).map(|power| 1_usize << power).take_while(|&rows| rows <= MAX_BATCH);
        let measured = sizes.map(|rows| (rows, device.typical(rows).mul_f64(told)));
        Self::with_profile(PolicyLimits::new(MAX_BATCH, lanes), objective, LatencyProfile::new(measured))
    }

    /// For devices that take what the profile says.
    pub(crate) fn with_profile(limits: PolicyLimits, objective: Duration, profile: LatencyProfile) -> Self {
        let limits = PolicyLimits { slo: Some(objective), ..limits };
        Self { policy: BatchPolicy::new(limits, profile.into()), running: Vec::new() }
    }
}

impl Job for Request {
    fn rows(&self) -> usize {
        1
    }
    fn deadline(&self) -> Option<Duration> {
        Some(self.deadline)
    }
    fn has_own_deadline(&self) -> bool {
        false
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

impl Policy for Convoy {
    fn arrive(&mut self, now: Duration, request: Request) -> bool {
        self.policy.submit(now, request).is_ok()
    }

    fn next(&mut self, now: Duration) -> Next {
        let dispatch = self.policy.dispatch(now);
        self.running.extend(dispatch.batch.iter().map(|batch| (batch.id, now)));
        Next {
            dropped: dispatch.dropped.len(),
            batch: dispatch.batch.map(|batch| batch.jobs).unwrap_or_default(),
            wake_at: dispatch.wake_at,
        }
    }

    fn ended(&mut self, now: Duration, _rows: usize, took: Duration) {
        let at = self.running.iter().position(|&(_, started)| started + took == now);
        if let Some((id, _)) = at.map(|at| self.running.remove(at)) {
            self.policy.completed(now, id, Some(took));
        }
    }
}
