//! Tensors of ours as values of ONNX Runtime, and the other way round: views, no copies but of strings.

use bytes::Bytes;
use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, Outlet, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef,
    ValueType,
};

use super::sentence;
use crate::backend::{BackendError, BatchInput};
use crate::tensor::{DataType, Shape, Tensor, TensorSpec, byte_string_ends};

/// What a model file says of an input or output.
pub(super) fn spec(outlet: &Outlet) -> Result<TensorSpec, BackendError> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(BackendError::new(format!("`{}` is no tensor but {}", outlet.name(), outlet.dtype())));
    };
    let datatype = data_type(*ty).ok_or_else(|| {
        BackendError::new(format!("`{}` has the data type {ty}, which is not served", outlet.name()))
    })?;
    Ok(TensorSpec { name: outlet.name().into(), datatype, dims: shape.to_vec() })
}

fn data_type(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

/// A view of the batch's bytes for ONNX Runtime; only strings are copied.
pub(super) fn input_value<'a>(input: &BatchInput<'a>) -> Result<SessionInputValue<'a>, BackendError> {
    match input.datatype {
        DataType::Bool => {
            let elements: &[bool] = bytemuck::checked::try_cast_slice(input.data)
                .map_err(|error| BackendError::new(format!("input `{}`: {error}", input.name)))?;
            tensor_ref(input, elements)
        }
        DataType::Uint8 => view::<u8>(input),
        DataType::Uint16 => view::<u16>(input),
        DataType::Uint32 => view::<u32>(input),
        DataType::Uint64 => view::<u64>(input),
        DataType::Int8 => view::<i8>(input),
        DataType::Int16 => view::<i16>(input),
        DataType::Int32 => view::<i32>(input),
        DataType::Int64 => view::<i64>(input),
        DataType::Fp16 => view::<f16>(input),
        DataType::Fp32 => view::<f32>(input),
        DataType::Fp64 => view::<f64>(input),
        DataType::Bf16 => view::<bf16>(input),
        DataType::Bytes => strings(input).map(SessionInputValue::from),
    }
}

fn view<'a, T>(input: &BatchInput<'a>) -> Result<SessionInputValue<'a>, BackendError>
where
    T: PrimitiveTensorElementType + bytemuck::AnyBitPattern + std::fmt::Debug,
{
    let elements: &[T] = bytemuck::try_cast_slice(input.data)
        .map_err(|error| BackendError::new(format!("input `{}`: {error}", input.name)))?;
    tensor_ref(input, elements)
}

fn tensor_ref<'a, T>(input: &BatchInput<'a>, elements: &'a [T]) -> Result<SessionInputValue<'a>, BackendError>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let tensor = TensorRef::from_array_view((input.shape.to_vec(), elements));
    tensor.map(SessionInputValue::from).map_err(|error| BackendError::new(sentence(error)))
}

/// The strings of an input, copied.
pub(super) fn strings(input: &BatchInput<'_>) -> Result<OrtTensor<String>, BackendError> {
    let failed = |detail: &str| BackendError::new(format!("input `{}`: {detail}", input.name));
    let ends = byte_string_ends(input.data).ok_or_else(|| failed("its elements do not add up"))?;
    let mut start = 0;
    let mut elements = Vec::with_capacity(ends.len());
    for end in ends {
        let text = std::str::from_utf8(&input.data[start + 4..end]);
        let text = text.map_err(|_| failed("ONNX Runtime takes strings of UTF-8 only"))?;
        elements.push(text.to_owned());
        start = end;
    }
    let tensor = OrtTensor::from_string_array((input.shape.to_vec(), elements.as_slice()));
    tensor.map_err(|error| BackendError::new(sentence(error)))
}

/// The memory ONNX Runtime wrote an output into becomes the tensor's data: it is freed when the last answer is sent.
pub(super) fn output_tensor(spec: &TensorSpec, value: DynValue) -> Result<Tensor, BackendError> {
    let name = spec.name.to_string();
    match spec.datatype {
        DataType::Bool => adopt::<bool>(name, DataType::Bool, value),
        DataType::Uint8 => adopt::<u8>(name, DataType::Uint8, value),
        DataType::Uint16 => adopt::<u16>(name, DataType::Uint16, value),
        DataType::Uint32 => adopt::<u32>(name, DataType::Uint32, value),
        DataType::Uint64 => adopt::<u64>(name, DataType::Uint64, value),
        DataType::Int8 => adopt::<i8>(name, DataType::Int8, value),
        DataType::Int16 => adopt::<i16>(name, DataType::Int16, value),
        DataType::Int32 => adopt::<i32>(name, DataType::Int32, value),
        DataType::Int64 => adopt::<i64>(name, DataType::Int64, value),
        DataType::Fp16 => adopt::<f16>(name, DataType::Fp16, value),
        DataType::Fp32 => adopt::<f32>(name, DataType::Fp32, value),
        DataType::Fp64 => adopt::<f64>(name, DataType::Fp64, value),
        DataType::Bf16 => adopt::<bf16>(name, DataType::Bf16, value),
        DataType::Bytes => {
            let (shape, elements) =
                value.try_extract_strings().map_err(|error| BackendError::new(sentence(error)))?;
            let shape = Shape::from(&**shape);
            Ok(Tensor { shape, ..Tensor::from_byte_strings(name, elements) })
        }
    }
}

fn adopt<T>(name: String, datatype: DataType, value: DynValue) -> Result<Tensor, BackendError>
where
    T: PrimitiveTensorElementType + bytemuck::NoUninit + std::fmt::Debug + Send + Sync + 'static,
{
    let value = value.downcast::<ort::value::TensorValueType<T>>();
    let value = value.map_err(|error| BackendError::new(format!("output `{name}`: {}", sentence(error))))?;
    let shape = Shape::from(&**value.shape());
    // An empty tensor may have no memory at all.
    let data = match shape.element_count() {
        Some(0) => Bytes::new(),
        _ => Bytes::from_owner(Adopted(value)),
    };
    Ok(Tensor { name, datatype, shape, data })
}

/// An output in the memory of ONNX Runtime.
struct Adopted<T: PrimitiveTensorElementType + std::fmt::Debug>(OrtTensor<T>);

impl<T: PrimitiveTensorElementType + bytemuck::NoUninit + std::fmt::Debug> AsRef<[u8]> for Adopted<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.extract_tensor().1)
    }
}
