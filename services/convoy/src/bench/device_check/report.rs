//! What was found, as text for people and as JSON for programs.

use model_serving::gpu::GpuFacts;
use serde::Serialize;
use std::fmt;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// What `--device` asked for.
    pub(super) requested: String,
    /// What runs the model: `cpu` or `cuda`.
    pub(super) provider: &'static str,
    /// Why it is the CPU although a GPU was looked for.
    pub(super) fallback_reason: Option<String>,
    pub(super) gpu: Option<Gpu>,
    pub(super) cores: usize,
    /// What the library says of its build.
    pub(super) library: &'static str,
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) checked: Checked,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Gpu {
    number: i32,
    name: String,
    uuid: String,
    driver: String,
    compute_capability: String,
}

impl From<GpuFacts> for Gpu {
    fn from(facts: GpuFacts) -> Self {
        let GpuFacts { number, name, uuid, driver, capability: (major, minor) } = facts;
        Self { number, name, uuid, driver, compute_capability: format!("{major}.{minor}") }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Checked {
    /// From the CPU's outputs for the same row; empty on the CPU itself.
    pub(super) difference: Vec<Difference>,
    /// One raw session, no server.
    pub(super) batches: Vec<BatchRow>,
    pub(super) served: Served,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Difference {
    pub(super) output: String,
    /// In the output's own unit.
    pub(super) max_abs: f64,
    pub(super) mean_abs: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct BatchRow {
    pub(super) rows: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) images_per_s: f64,
}

/// The server under a closed loop, beside the best of the raw sessions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Served {
    pub(super) callers: usize,
    pub(super) images_per_s: f64,
    pub(super) raw_best_images_per_s: f64,
    pub(super) percent_of_raw: f64,
    pub(super) failed: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device    {} (asked for: {})", self.provider, self.requested)?;
        if let Some(reason) = &self.fallback_reason {
            writeln!(f, "          not a GPU: {reason}")?;
        }
        if let Some(gpu) = &self.gpu {
            writeln!(
                f,
                "gpu       {}: {}, compute capability {}, driver {}, {}",
                gpu.number, gpu.name, gpu.compute_capability, gpu.driver, gpu.uuid
            )?;
        }
        writeln!(f, "cores     {}", self.cores)?;
        writeln!(f, "library   {}", self.library)?;
        writeln!(f, "model     {}\n", self.model)?;
        if self.gpu.is_none() {
            writeln!(f, "The device is the CPU: there is nothing to compare its outputs with.\n")?;
        } else if self.checked.difference.is_empty() {
            writeln!(f, "No output is FP32 and of the CPU's size: nothing was compared.\n")?;
        }
        for Difference { output, max_abs, mean_abs } in &self.checked.difference {
            writeln!(f, "output `{output}`: from the CPU's {max_abs:.6} at most, {mean_abs:.6} in the mean")?;
        }
        writeln!(f, "one raw session\n  rows      p50 ms    p99 ms   images/s")?;
        for batch in &self.checked.batches {
            let BatchRow { rows, p50_ms, p99_ms, images_per_s } = batch;
            writeln!(f, "  {rows:4}  {p50_ms:10.2}{p99_ms:10.2}{images_per_s:11.1}")?;
        }
        let Served { callers, images_per_s, raw_best_images_per_s, percent_of_raw, failed } =
            &self.checked.served;
        writeln!(
            f,
            "\nserved    {images_per_s:.1} images/s to {callers} callers, {percent_of_raw:.1} % of the best raw \
             sessions ({raw_best_images_per_s:.1}); {failed} failed"
        )
    }
}
