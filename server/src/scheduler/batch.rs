//! Requests become the tensors of one batch, and the batch's outputs become their answers.

use std::iter::once;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::admission::{InputSpec, Signature};
use super::request::{Encoding, InferenceRequest, PreparedInput, PreparedRequest};
use crate::backend::{Backend, BackendError, Batch, BatchInput};
use crate::tensor::{DataType, Shape, Tensor, byte_string_ends};

/// The memory of one instance's batches: written anew for each, never shrunk.
#[derive(Clone, Debug)]
pub(crate) struct BatchBuffer {
    signature: Arc<Signature>,
    inputs: Vec<AlignedBytes>,
}

impl BatchBuffer {
    /// An empty buffer for batches of this model.
    pub(crate) fn new(signature: Arc<Signature>) -> Self {
        let inputs = signature.inputs.iter().map(|_| AlignedBytes::default()).collect();
        Self { signature, inputs }
    }

    /// Puts the requests' rows one after the other. All must have the same row shapes, and at least one be there.
    ///
    /// What a single request has as the model takes it is not copied at all.
    pub(crate) fn write<'a>(&'a mut self, requests: &[&'a PreparedRequest]) -> Batch<'a> {
        let rows = requests.iter().map(|request| request.rows).sum();
        let inputs = self.signature.inputs.iter().zip(&mut self.inputs).enumerate();
        let inputs = inputs.map(|(at, (spec, buffer))| {
            let parts = requests.iter().map(|request| (request.rows, &request.inputs[at]));
            let data = match requests {
                [only] if is_ready(spec, &only.inputs[at]) => &*only.inputs[at].data,
                _ => {
                    write_input(spec, parts, buffer);
                    buffer.as_slice()
                }
            };
            let row_shape = requests.first().map_or(&[][..], |request| &request.inputs[at].row_shape);
            let mut shape = Vec::with_capacity(row_shape.len() + 1);
            if self.signature.has_batch_dimension() {
                shape.push(i64::try_from(rows).expect("rows are limited by max_batch_size, an i32"));
            }
            shape.extend_from_slice(row_shape);
            BatchInput {
                name: &spec.tensor.name,
                datatype: spec.tensor.datatype,
                shape: Shape::from(shape),
                data,
            }
        });
        Batch { rows, inputs: inputs.collect() }
    }
}

/// Whether a request's bytes can be the model's as they lie in memory.
fn is_ready(spec: &InputSpec, input: &PreparedInput) -> bool {
    // Strings are read byte by byte.
    let alignment = spec.tensor.datatype.byte_size().unwrap_or(1);
    input.encoding == Encoding::Declared && input.data.as_ptr().addr().is_multiple_of(alignment)
}

/// Every batch size up to `most`, in the order in which a device is to meet them: one row, the largest, for which it takes
/// its memory, and all others from small to large.
pub(crate) fn every_size(most: usize) -> impl Iterator<Item = usize> {
    once(1).chain((most > 1).then_some(most)).chain(2..most)
}

/// A request run outside of the queue, through the same buffer and the same split: while a model loads.
///
/// A clone shares the request and has a buffer of its own.
#[derive(Clone, Debug)]
pub(crate) struct DryRun {
    signature: Arc<Signature>,
    request: PreparedRequest,
    buffer: BatchBuffer,
}

impl DryRun {
    /// A run of these inputs.
    ///
    /// # Errors
    /// When they do not fit the model.
    fn new(signature: &Arc<Signature>, inputs: Vec<Tensor>) -> Result<Self, BackendError> {
        let request = InferenceRequest { inputs, ..InferenceRequest::default() };
        let request = signature.prepare(request).map_err(|error| BackendError::new(error.to_string()))?;
        Ok(Self {
            signature: Arc::clone(signature),
            request,
            buffer: BatchBuffer::new(Arc::clone(signature)),
        })
    }

    /// A run of zeros (empty strings for BYTES; 1 for open dimensions).
    ///
    /// # Errors
    /// When so many rows do not fit the model, or into memory.
    pub(crate) fn of_zeros(signature: &Arc<Signature>, rows: usize) -> Result<Self, BackendError> {
        let zeros = |spec: &InputSpec| {
            let mut dims: Vec<i64> =
                spec.tensor.dims.iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
            if signature.has_batch_dimension() {
                dims.insert(0, i64::try_from(rows).unwrap_or(i64::MAX));
            }
            let (shape, datatype) = (Shape::from(dims), spec.tensor.datatype);
            // An empty string is its length, four zeros.
            let element = datatype.byte_size().unwrap_or(size_of::<u32>());
            let bytes = shape.element_count().and_then(|count| count.checked_mul(element));
            let bytes = bytes
                .ok_or_else(|| BackendError::new(format!("input `{}` is too large", spec.tensor.name)))?;
            let data = Bytes::from(vec![0; bytes]);
            Ok(Tensor { name: spec.tensor.name.to_string(), datatype, shape, data })
        };
        let inputs = signature.inputs.iter().map(zeros).collect::<Result<Vec<_>, BackendError>>()?;
        Self::new(signature, inputs)
    }

    /// Runs it, checks that its outputs can be split, and gives the time it took in the model.
    ///
    /// # Errors
    /// When the model fails, or its outputs do not have a row for each of the inputs'.
    pub(crate) fn run(&mut self, backend: &mut dyn Backend) -> Result<Duration, BackendError> {
        let batch = self.buffer.write(&[&self.request]);
        let started = Instant::now();
        let outputs = backend.infer(&batch)?;
        let duration = started.elapsed();
        split(&self.signature, &outputs, &[&self.request])?;
        Ok(duration)
    }
}

/// Writes one input of all requests.
fn write_input<'a>(
    spec: &InputSpec,
    parts: impl Iterator<Item = (usize, &'a PreparedInput)> + Clone,
    buffer: &mut AlignedBytes,
) {
    let bytes =
        |(rows, input): (usize, &PreparedInput)| match (input.encoding, spec.tensor.datatype.byte_size()) {
            // The image dimensions are all fixed, and checked against the model when it was loaded.
            (Encoding::Pixels, Some(size)) => rows * size * input.row_shape.element_count().unwrap_or(0),
            _ => input.data.len(),
        };
    let mut rest = buffer.resize(parts.clone().map(bytes).sum());
    for (rows, input) in parts {
        let (out, next) = rest.split_at_mut(bytes((rows, input)));
        match (input.encoding, &spec.pixels) {
            (Encoding::Pixels, Some(pixels)) => {
                let image_pixels = usize::try_from(pixels.height * pixels.width).unwrap_or(0);
                pixels.conversion.write(&input.data, image_pixels, out);
            }
            _ => out.copy_from_slice(&input.data),
        }
        rest = next;
    }
}

/// Gives each request its rows of a batch's outputs, as views: no row is copied.
///
/// `outputs` are the model's, in its order.
///
/// # Errors
/// When an output does not have the rows of the batch: then its model cannot be batched.
pub(crate) fn split(
    signature: &Signature,
    outputs: &[Tensor],
    requests: &[&PreparedRequest],
) -> Result<Vec<Vec<Tensor>>, BackendError> {
    if !signature.has_batch_dimension() {
        return Ok(requests.iter().map(|request| wanted(request, |at| outputs[at].clone())).collect());
    }
    let rows: usize = requests.iter().map(|request| request.rows).sum();
    let starts: Vec<RowStarts> =
        outputs.iter().map(|output| RowStarts::of(output, rows)).collect::<Result<_, _>>()?;
    let mut first = 0;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let last = first + request.rows;
        answers.push(wanted(request, |at| {
            let output = &outputs[at];
            let mut shape = output.shape.to_vec();
            shape[0] = i64::try_from(request.rows).expect("rows are limited by max_batch_size, an i32");
            Tensor {
                name: output.name.clone(),
                datatype: output.datatype,
                shape: Shape::from(shape),
                data: output.data.slice(starts[at].at(first)..starts[at].at(last)),
            }
        }));
        first = last;
    }
    Ok(answers)
}

fn wanted(request: &PreparedRequest, take: impl Fn(usize) -> Tensor) -> Vec<Tensor> {
    request.outputs.iter().map(|&at| take(at)).collect()
}

/// Where the rows of an output begin.
enum RowStarts {
    /// Rows of this many bytes.
    Even(usize),
    /// At these offsets; the last is the end.
    At(Vec<usize>),
}

impl RowStarts {
    fn of(output: &Tensor, rows: usize) -> Result<Self, BackendError> {
        let has = output.shape.first().and_then(|&rows| usize::try_from(rows).ok());
        if has != Some(rows) {
            return Err(BackendError::new(format!(
                "output `{}` has shape {} for a batch of {rows} rows: set max_batch_size: 0 for a model that cannot be batched",
                output.name, output.shape
            )));
        }
        if output.datatype != DataType::Bytes {
            return Ok(Self::Even(output.data.len() / rows));
        }
        let ends = byte_string_ends(&output.data).unwrap_or_default();
        let per_row = ends.len() / rows;
        let starts = (0..=rows).map(|row| match (row * per_row).checked_sub(1) {
            None => 0,
            Some(before) => ends[before],
        });
        Ok(Self::At(starts.collect()))
    }

    fn at(&self, row: usize) -> usize {
        match self {
            Self::Even(bytes) => row * bytes,
            Self::At(starts) => starts[row],
        }
    }
}

/// Bytes with the alignment of the widest element, 8 bytes.
#[derive(Clone, Debug, Default)]
struct AlignedBytes {
    words: Vec<u64>,
    length: usize,
}

impl AlignedBytes {
    /// Makes room for `length` bytes, with whatever is in them.
    fn resize(&mut self, length: usize) -> &mut [u8] {
        let words = length.div_ceil(size_of::<u64>());
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.length = length;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..length]
    }

    fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

#[cfg(test)]
mod tests;
