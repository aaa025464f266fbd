//! What was found, as text for people and as JSON for programs.

use super::compare::{Difference, Pairs};
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
    /// Threads of the raw session, the caller's included.
    pub(super) session_threads: usize,
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
    /// One raw session, no server.
    pub(super) batches: Vec<BatchRow>,
    pub(super) served: Served,
}

impl Checked {
    /// What is not as it must be, in words for the middle of a sentence.
    pub(super) fn wrong(&self) -> Vec<String> {
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
    /// Where something is copied: not on a CPU.
    pub(super) copies: Option<Copies>,
}

/// Medians of the parts of a run, apart from each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Copies {
    pub(super) copy_in_ms: f64,
    pub(super) compute_ms: f64,
    pub(super) copy_out_ms: f64,
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
        let plural = if self.session_threads == 1 { "" } else { "s" };
        writeln!(f, "one raw session, {} thread{plural}", self.session_threads)?;
        writeln!(f, "  rows      p50 ms    p99 ms   images/s")?;
        for batch in &self.checked.batches {
            let BatchRow { rows, p50_ms, p99_ms, images_per_s, copies } = batch;
            write!(f, "  {rows:4}  {p50_ms:10.2}{p99_ms:10.2}{images_per_s:11.1}")?;
            if let Some(Copies { copy_in_ms, compute_ms, copy_out_ms }) = copies {
                write!(
                    f,
                    "   copied in {copy_in_ms:.2} ms, computed {compute_ms:.2} ms, copied out {copy_out_ms:.2} ms"
                )?;
            }
            writeln!(f)?;
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
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_bound() {
        let served = |failed| Served {
            callers: 4,
            images_per_s: 90.0,
            raw_best_images_per_s: 100.0,
            percent_of_raw: 90.0,
            failed,
        };
        let good = Difference {
            output: "scores".to_owned(),
            datatype: "FP32",
            max_abs: Some(0.0005),
            mean_abs: Some(0.0001),
            unequal: 7,
            bound: Some(0.001),
            within: true,
        };
        let pairs = Pairs { checked: 5, apart: 0, least_iou: 1.0, most_score: 0.0 };
        let checked = |difference, pairs, failed| Checked {
            difference,
            pairs: Some(pairs),
            batches: Vec::new(),
            served: served(failed),
        };
        assert!(checked(vec![good.clone()], pairs, 0).wrong().is_empty());
        let bad = Difference { max_abs: Some(0.002), within: false, ..good.clone() };
        let ids = Difference { output: "ids".to_owned(), max_abs: None, bound: None, within: false, ..good };
        let wrong = checked(vec![bad, ids], Pairs { apart: 2, ..pairs }, 3).wrong().join("; ");
        assert_eq!(
            wrong,
            "output `scores` is 0.002000 from the CPU's, and may be 0.001000; output `ids` has 7 elements that are not \
             the CPU's; 2 of the CPU's 5 detections are not the device's; 3 requests failed"
        );
    }
}
