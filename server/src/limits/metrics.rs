//! What operators see of the limits.

use super::InFlight;
use crate::error::ServingError;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts};

/// Why a call was refused before all of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What is queued would make it too late.
    Backlog,
    /// Its deadline is shorter than the model needs.
    Hopeless,
    /// `--max-inflight-bytes`.
    Memory,
    /// `--body-timeout`.
    Slow,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Backlog, Self::Hopeless, Self::Memory, Self::Slow];

    /// Why a model refused.
    pub(crate) fn of(refusal: &ServingError) -> Self {
        match refusal {
            ServingError::DeadlineExceeded(_) => Self::Hopeless,
            _ => Self::Backlog,
        }
    }
}

/// Counts calls refused before all of them was read; clones count together.
#[derive(Clone)]
pub(crate) struct EarlyRefusals {
    counter: IntCounterVec,
}

impl EarlyRefusals {
    /// At zero. Register [`EarlyRefusals::collector`] to have it rendered.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "convoy_requests_refused_early_total",
            "Requests refused on their headers, or before all of their bodies was read, by reason",
        );
        let counter = IntCounterVec::new(options, &["reason"])?;
        for reason in Reason::ALL {
            counter.with_label_values(&[reason.as_str()]);
        }
        Ok(Self { counter })
    }

    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.counter.clone())
    }

    pub(crate) fn count(&self, reason: Reason) {
        self.counter.with_label_values(&[reason.as_str()]).inc();
    }
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Hopeless => "hopeless",
            Self::Memory => "memory",
            Self::Slow => "slow_body",
        }
    }
}

/// A gauge of the bytes in flight, read when it is scraped.
pub(crate) fn collector(in_flight: InFlight) -> Result<Box<dyn Collector>, prometheus::Error> {
    let gauge = IntGauge::new(
        "convoy_inflight_bytes",
        "Memory that requests hold: bodies, decoded tensors, images being decoded, answers being sent",
    )?;
    Ok(Box::new(Gauge { in_flight, gauge }))
}

struct Gauge {
    in_flight: InFlight,
    gauge: IntGauge,
}

impl Collector for Gauge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::try_from(self.in_flight.used()).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}
