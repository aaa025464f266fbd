//! What was found, as text for people and as JSON for programs.

use super::compare::{Difference, Pairs};
use model_serving::backend::ExecutionProvider;
use model_serving::gpu::GpuFacts;
use serde::Serialize;
use std::fmt;

/// What a server must carry on a GPU, in percent of the best raw sessions.
const LEAST_SERVED: f64 = 90.0;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// What `--device` asked for.
    pub(super) requested: String,
    /// What runs the model: `cpu`, `cuda` or `tensorrt`.
    pub(super) provider: &'static str,
    /// Why it is not what was looked for first.
    pub(super) fallback_reason: Option<String>,
    pub(super) gpu: Option<Gpu>,
    pub(super) cores: usize,
    /// Threads of the raw session, the caller's included.
    pub(super) session_threads: usize,
    /// What the library says of its build.
    pub(super) library: &'static str,
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) checked: Checked,
}

impl Report {
    /// What is not as it must be, in words for the middle of a sentence.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.checked.wrong(self.is_on_gpu())
    }

    fn is_on_gpu(&self) -> bool {
        self.provider != ExecutionProvider::Cpu.as_str()
    }
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
        let GpuFacts { number, name, uuid, driver, capability: (major, minor), .. } = facts;
        Self { number, name, uuid, driver, compute_capability: format!("{major}.{minor}") }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Checked {
    /// From the CPU's outputs for the same row; empty on the CPU itself.
    pub(super) difference: Vec<Difference>,
    /// Of a detector on a GPU: the CPU's detections of the same row.
    pub(super) pairs: Option<Pairs>,
    /// Of a detector on a GPU, where the CPU has no detections: what to do.
    pub(super) not_checked: Option<&'static str>,
    /// One raw session, no server.
    pub(super) batches: Vec<BatchRow>,
    /// The first size that failed, after which none was tried.
    pub(super) untimed: Option<Untimed>,
    pub(super) served: Served,
}

impl Checked {
    fn wrong(&self, on_gpu: bool) -> Vec<String> {
        let mut wrong: Vec<String> = self.difference.iter().filter(|one| !one.within).map(apart).collect();
        if let Some(pairs) = self.pairs.filter(|pairs| pairs.apart > 0) {
            wrong.push(format!(
                "{} of the CPU's {} detections are not the device's",
                pairs.apart, pairs.checked
            ));
        }
        if self.served.failed > 0 {
            wrong.push(format!("{} requests failed", self.served.failed));
        }
        let percent = self.served.percent_of_raw;
        // What is no number is not enough either.
        if on_gpu && (percent.is_nan() || percent < LEAST_SERVED) {
            wrong.push(format!(
                "the server carries {percent:.1} % of the best raw sessions, and must carry {LEAST_SERVED} %"
            ));
        }
        wrong
    }
}

fn apart(Difference { output, max_abs, unequal, bound, .. }: &Difference) -> String {
    match (max_abs, bound) {
        (Some(max_abs), Some(bound)) => {
            format!("output `{output}` is {max_abs:.6} from the CPU's, and may be {bound:.6}")
        }
        _ => format!("output `{output}` has {unequal} elements that are not the CPU's"),
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct BatchRow {
    pub(super) rows: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) images_per_s: f64,
    /// Whether it is more than the server may batch: then it is no measure of the server.
    pub(super) beyond_server: bool,
    /// Where something is copied: not on a CPU.
    pub(super) copies: Option<Copies>,
}

/// A batch size that could not be timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Untimed {
    pub(super) rows: usize,
    /// What the model or the device said.
    pub(super) reason: String,
}

/// Medians of the parts of a run, apart from each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Copies {
    pub(super) copy_in_ms: f64,
    pub(super) compute_ms: f64,
    pub(super) copy_out_ms: f64,
}

/// The server under a closed loop, beside the best of the raw sessions in batches that the server may make.
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
            let what = if self.is_on_gpu() { "TensorRT" } else { "a GPU" };
            writeln!(f, "          not {what}: {reason}")?;
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
        if !self.is_on_gpu() {
            writeln!(f, "The device is the CPU: there is nothing to compare its outputs with.\n")?;
        } else if self.checked.difference.is_empty() {
            writeln!(f, "The model has no outputs: nothing was compared.\n")?;
        }
        for Difference { output, datatype, max_abs, mean_abs, unequal, within, .. } in
            &self.checked.difference
        {
            let verdict = if *within { "within bounds" } else { "BEYOND BOUNDS" };
            write!(f, "output `{output}` ({datatype}): {verdict}, ")?;
            match (max_abs, mean_abs) {
                (Some(max), Some(mean)) => {
                    writeln!(f, "from the CPU's {max:.6} at most, {mean:.6} in the mean")?;
                }
                _ => writeln!(f, "{unequal} elements are not the CPU's")?,
            }
        }
        if let Some(Pairs { checked, apart, least_iou, most_score }) = self.checked.pairs {
            writeln!(
                f,
                "detections of the CPU: {checked}, of which {apart} are not the device's; IoU {least_iou:.4} at least, \
                 scores {most_score:.6} apart at most"
            )?;
        }
        if let Some(advice) = self.checked.not_checked {
            writeln!(f, "detections of the CPU: not checked: {advice}")?;
        }
        let plural = if self.session_threads == 1 { "" } else { "s" };
        writeln!(f, "one raw session, {} thread{plural}", self.session_threads)?;
        writeln!(f, "  rows      p50 ms    p99 ms   images/s")?;
        for batch in &self.checked.batches {
            let BatchRow { rows, p50_ms, p99_ms, images_per_s, beyond_server, copies } = batch;
            write!(f, "  {rows:4}  {p50_ms:10.2}{p99_ms:10.2}{images_per_s:11.1}")?;
            if let Some(Copies { copy_in_ms, compute_ms, copy_out_ms }) = copies {
                write!(
                    f,
                    "   copied in {copy_in_ms:.2} ms, computed {compute_ms:.2} ms, copied out {copy_out_ms:.2} ms"
                )?;
            }
            let beyond =
                if *beyond_server { "   beyond the server's max_batch_size: not compared" } else { "" };
            writeln!(f, "{beyond}")?;
        }
        if let Some(Untimed { rows, reason }) = &self.checked.untimed {
            writeln!(f, "  {rows:4}  not timed, nor what follows: {reason}")?;
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

#[cfg(test)]
mod tests;
