//! Before a model is ready, every kind of batch has been run once, and its duration is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::backend::{Backend, BackendError};
use crate::scheduler::{DryRun, InputSpec, LatencyProfile, Signature};
use crate::tensor::{DataType, Shape, Tensor};

/// Timed runs of one batch size; their median counts.
const REPEATS: usize = 5;
/// Batch sizes that are always run: the smallest and the largest.
const ENDS: usize = 2;
/// What a model is first taken to need when it cannot be measured.
const UNKNOWN: Duration = Duration::from_millis(10);

/// Runs and times every batch size worth knowing, for as long as `time` allows; the rest is interpolated. One row and
/// the largest batch are run whatever it takes: what is wrong with the model shows in one of them.
///
/// # Errors
/// When the model fails on its own kind of input, in words for the middle of a sentence. A model with open dimensions
/// besides the batch's may want others than are tried here, and is then taken as it is.
pub(crate) fn measure(
    backend: &mut dyn Backend,
    signature: &Arc<Signature>,
    time: Duration,
) -> Result<LatencyProfile, String> {
    let started = Instant::now();
    let in_time = || started.elapsed() < time;
    // The first run of a size allocates and, on a GPU, chooses its algorithms: it counts only if there is no other.
    let mut warmed: Vec<(usize, Duration)> = Vec::new();
    for (at, rows) in sizes(signature.max_batch_size).into_iter().enumerate() {
        if at >= ENDS && !in_time() {
            break;
        }
        match run(backend, signature, rows) {
            Ok(duration) => warmed.push((rows, duration)),
            Err(error) if has_open_dimensions(signature) => {
                tracing::warn!(model = %signature.model, %error, "The model cannot be measured: its dimensions are open");
                return Ok(LatencyProfile::new([(1, UNKNOWN)]));
            }
            Err(error) => {
                return Err(format!("it fails on a batch of {rows} with nothing but zeros: {error}"));
            }
        }
    }
    // In rounds, so that whatever else the machine does meanwhile slows all sizes and not one of them.
    let mut timed: Vec<Vec<Duration>> = vec![Vec::with_capacity(REPEATS); warmed.len()];
    for _ in 0..REPEATS {
        for ((rows, _), durations) in warmed.iter().zip(&mut timed) {
            if !in_time() {
                break;
            }
            durations.push(run(backend, signature, *rows).map_err(|error| error.to_string())?);
        }
    }
    let typical = warmed.into_iter().zip(timed).map(|((rows, first), mut durations)| {
        durations.sort_unstable();
        (rows, durations.get(durations.len() / 2).copied().unwrap_or(first))
    });
    Ok(LatencyProfile::new(typical))
}

/// Runs one row, so that the first request does not pay for what a first run does.
///
/// # Errors
/// As [`measure`].
pub(crate) fn run_once(backend: &mut dyn Backend, signature: &Arc<Signature>) -> Result<(), String> {
    match run(backend, signature, 1) {
        Err(error) if !has_open_dimensions(signature) => Err(format!("it fails on zeros: {error}")),
        _ => Ok(()),
    }
}

/// One row, then the largest batch, then those between: what is left out for lack of time lies between the known.
fn sizes(max_batch_size: usize) -> Vec<usize> {
    let mut sizes = vec![1];
    if max_batch_size > 1 {
        sizes.push(max_batch_size);
    }
    sizes.extend((1..usize::BITS).map(|power| 1 << power).take_while(|&rows| rows < max_batch_size));
    sizes
}

fn has_open_dimensions(signature: &Signature) -> bool {
    signature.inputs.iter().any(|input| input.tensor.dims.iter().any(|&dim| dim < 0))
}

/// Runs a batch of zeros (empty strings for BYTES; 1 for open dimensions) and gives its duration.
fn run(backend: &mut dyn Backend, signature: &Arc<Signature>, rows: usize) -> Result<Duration, BackendError> {
    let zeros = |spec: &InputSpec| {
        let mut dims: Vec<i64> = spec.tensor.dims.iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
        if signature.has_batch_dimension() {
            dims.insert(0, i64::try_from(rows).unwrap_or(i64::MAX));
        }
        let shape = Shape::from(dims);
        let datatype = spec.tensor.datatype;
        // An empty string is its length, four zeros.
        let element = if datatype == DataType::Bytes { 4 } else { datatype.byte_size().unwrap_or(0) };
        let bytes = shape.element_count().and_then(|count| count.checked_mul(element));
        let bytes =
            bytes.ok_or_else(|| BackendError::new(format!("input `{}` is too large", spec.tensor.name)))?;
        let data = Bytes::from(vec![0; bytes]);
        Ok(Tensor { name: spec.tensor.name.to_string(), datatype, shape, data })
    };
    let inputs = signature.inputs.iter().map(zeros).collect::<Result<Vec<_>, BackendError>>()?;
    DryRun::new(signature, inputs)?.run(backend)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_ends_are_measured_before_what_lies_between() {
        assert_eq!(sizes(0), [1]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(2), [1, 2]);
        assert_eq!(sizes(8), [1, 8, 2, 4]);
        assert_eq!(sizes(12), [1, 12, 2, 4, 8]);
    }
}
