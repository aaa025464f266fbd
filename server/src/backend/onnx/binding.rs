//! Runs with bound tensors: the batch is written into host memory that the device reads by itself, and the outputs come
//! into such memory.
//!
//! The memory is the session's own arenas': it is taken from the system once and used again for each batch. On a GPU it
//! is pinned, so that the copies need no detour through the driver's buffers, and each copy runs beside the computation
//! of the model's other instances. On a CPU the same code runs with common memory; serving does not use it there, since
//! the batch would be copied once more than needed.

use std::time::{Duration, Instant};

use half::{bf16, f16};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

use super::failure::backend_error;
use super::values::{output_tensor, strings};
use crate::backend::{BackendError, Batch, BatchInput};
use crate::tensor::{DataType, Tensor, TensorSpec};

/// Where a session's inputs are written and its outputs come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostMemory {
    /// Number of the GPU that reads inputs from pinned memory; `None`: they are in common memory.
    pub(super) pinned_inputs: Option<i32>,
    /// Number of the GPU that writes outputs into pinned memory.
    pub(super) pinned_outputs: Option<i32>,
    /// Number of the GPU that computes; `None`: a CPU.
    pub(super) gpu: Option<i32>,
}

/// How long the parts of a run took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunParts {
    /// Inputs to the device, with the copy into memory that it reads.
    pub copy_in: Duration,
    /// The model.
    pub compute: Duration,
    /// Outputs from the device.
    pub copy_out: Duration,
}

/// A session's bound inputs and outputs.
#[derive(Debug)]
pub(super) struct Binding {
    bound: IoBinding,
    inputs: Allocator,
    outputs: MemoryInfo<'static>,
    /// For strings, which no device has.
    common: MemoryInfo<'static>,
    /// Where the device computes.
    device: MemoryInfo<'static>,
}

impl Binding {
    /// A binding of this session.
    ///
    /// # Errors
    /// When there is no such memory.
    pub(super) fn new(session: &Session, memory: HostMemory) -> ort::Result<Self> {
        let inputs = Allocator::new(session, info(memory.pinned_inputs, MemoryType::CPUInput)?)?;
        let outputs = info(memory.pinned_outputs, MemoryType::CPUOutput)?;
        let common = info(None, MemoryType::Default)?;
        let device = match memory.gpu {
            None => common.clone(),
            Some(gpu) => {
                MemoryInfo::new(AllocationDevice::CUDA, gpu, AllocatorType::Device, MemoryType::Default)?
            }
        };
        Ok(Self { bound: session.create_binding()?, inputs, outputs, common, device })
    }

    /// Runs a batch and gives these outputs.
    ///
    /// # Errors
    /// When the batch cannot be written, or the model fails.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        options: &RunOptions<NoSelectedOutputs>,
        batch: &Batch<'_>,
        outputs: &[TensorSpec],
    ) -> Result<Vec<Tensor>, BackendError> {
        let given = self.run_bound(session, options, batch, outputs);
        // What was bound is given back to the arenas, for this session's next batch.
        self.bound.clear();
        given
    }

    /// Runs a batch twice, to tell the parts of a run from each other: once leaving its outputs on the device.
    ///
    /// # Errors
    /// As [`Binding::run`].
    pub(super) fn time_parts(
        &mut self,
        session: &mut Session,
        options: &RunOptions<NoSelectedOutputs>,
        batch: &Batch<'_>,
        outputs: &[TensorSpec],
    ) -> Result<RunParts, BackendError> {
        let mut timed = || {
            let started = Instant::now();
            self.bind_inputs(batch)?;
            let copied = Instant::now();
            drop(self.run_into(&self.device.clone(), session, options, outputs)?);
            let computed = Instant::now();
            self.bound.clear_outputs();
            drop(self.run_into(&self.outputs.clone(), session, options, outputs)?);
            let compute = computed - copied;
            Ok(RunParts {
                copy_in: copied - started,
                compute,
                copy_out: computed.elapsed().saturating_sub(compute),
            })
        };
        let parts = timed();
        self.bound.clear();
        parts
    }

    fn bind_inputs(&mut self, batch: &Batch<'_>) -> Result<(), BackendError> {
        for input in &batch.inputs {
            let bound = match input.datatype {
                DataType::Bytes => self.bound.bind_input(input.name, &strings(input)?),
                _ => self.bound.bind_input(input.name, &self.filled(input)?),
            };
            bound.map_err(backend_error)?;
        }
        self.bound.synchronize_inputs().map_err(backend_error)
    }

    fn bind_outputs(&mut self, outputs: &[TensorSpec], memory: &MemoryInfo<'_>) -> ort::Result<()> {
        for output in outputs {
            let memory = if output.datatype == DataType::Bytes { &self.common } else { memory };
            self.bound.bind_output_to_device(&*output.name, memory)?;
        }
        Ok(())
    }

    /// Runs with the inputs that are bound, and returns when the outputs are in `memory`.
    fn run_into<'s>(
        &'s mut self,
        memory: &MemoryInfo<'_>,
        session: &'s mut Session,
        options: &RunOptions<NoSelectedOutputs>,
        outputs: &[TensorSpec],
    ) -> Result<SessionOutputs<'s>, BackendError> {
        self.bind_outputs(outputs, memory).map_err(backend_error)?;
        let values = session.run_binding_with_options(&self.bound, options).map_err(backend_error)?;
        self.bound.synchronize_outputs().map_err(backend_error)?;
        Ok(values)
    }

    fn run_bound(
        &mut self,
        session: &mut Session,
        options: &RunOptions<NoSelectedOutputs>,
        batch: &Batch<'_>,
        outputs: &[TensorSpec],
    ) -> Result<Vec<Tensor>, BackendError> {
        self.bind_inputs(batch)?;
        let mut values = self.run_into(&self.outputs.clone(), session, options, outputs)?;
        let take = |spec: &TensorSpec| {
            let value = values.remove(&*spec.name);
            let missing = || BackendError::new(format!("the model gave no output `{}`", spec.name));
            output_tensor(spec, value.ok_or_else(missing)?)
        };
        outputs.iter().map(take).collect()
    }

    /// The batch's bytes in memory that the device reads.
    fn filled(&self, input: &BatchInput<'_>) -> Result<DynTensor, BackendError> {
        match input.datatype {
            DataType::Bool => {
                let elements: &[bool] = bytemuck::checked::try_cast_slice(input.data)
                    .map_err(|error| BackendError::new(format!("input `{}`: {error}", input.name)))?;
                self.copied(input, TensorElementType::Bool, elements)
            }
            DataType::Uint8 => self.cast::<u8>(input),
            DataType::Uint16 => self.cast::<u16>(input),
            DataType::Uint32 => self.cast::<u32>(input),
            DataType::Uint64 => self.cast::<u64>(input),
            DataType::Int8 => self.cast::<i8>(input),
            DataType::Int16 => self.cast::<i16>(input),
            DataType::Int32 => self.cast::<i32>(input),
            DataType::Int64 => self.cast::<i64>(input),
            DataType::Fp16 => self.cast::<f16>(input),
            DataType::Fp32 => self.cast::<f32>(input),
            DataType::Fp64 => self.cast::<f64>(input),
            DataType::Bf16 => self.cast::<bf16>(input),
            DataType::Bytes => Err(BackendError::new(format!("input `{}` has strings", input.name))),
        }
    }

    fn cast<T>(&self, input: &BatchInput<'_>) -> Result<DynTensor, BackendError>
    where
        T: PrimitiveTensorElementType + bytemuck::AnyBitPattern,
    {
        let elements: &[T] = bytemuck::try_cast_slice(input.data)
            .map_err(|error| BackendError::new(format!("input `{}`: {error}", input.name)))?;
        self.copied(input, T::into_tensor_element_type(), elements)
    }

    fn copied<T>(
        &self,
        input: &BatchInput<'_>,
        ty: TensorElementType,
        elements: &[T],
    ) -> Result<DynTensor, BackendError>
    where
        T: PrimitiveTensorElementType + Copy,
    {
        let failed = |error: ort::Error| backend_error(format!("input `{}`: {error}", input.name));
        let mut tensor = DynTensor::new(&self.inputs, ty, input.shape.to_vec()).map_err(failed)?;
        if elements.is_empty() {
            return Ok(tensor);
        }
        let (_, memory) = tensor.try_extract_tensor_mut::<T>().map_err(failed)?;
        if memory.len() != elements.len() {
            let (has, wants) = (elements.len(), memory.len());
            return Err(BackendError::new(format!("input `{}` has {has} elements for {wants}", input.name)));
        }
        memory.copy_from_slice(elements);
        Ok(tensor)
    }
}

/// Common memory, or memory that is pinned for this GPU.
fn info(pinned_for: Option<i32>, memory: MemoryType) -> ort::Result<MemoryInfo<'static>> {
    match pinned_for {
        None => MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default),
        Some(gpu) => MemoryInfo::new(AllocationDevice::CUDA_PINNED, gpu, AllocatorType::Device, memory),
    }
}
