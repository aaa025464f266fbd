//! Whether the server is ready, for those who only see its metrics.

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use service_kit::Readiness;

/// A gauge, read when it is scraped.
pub(super) struct Ready {
    readiness: Readiness,
    gauge: IntGauge,
}

impl Ready {
    pub(super) fn new(readiness: Readiness) -> Result<Self, prometheus::Error> {
        let gauge = IntGauge::new("convoy_ready", "1 if the server is ready; /ready says what it waits for")?;
        Ok(Self { readiness, gauge })
    }
}

impl Collector for Ready {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::from(self.readiness.is_ready()));
        self.gauge.collect()
    }
}
