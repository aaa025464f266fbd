//! Types of a tensor's elements.

use std::fmt;
use std::str::FromStr;

use convoy_proto::inference;

/// Type of a tensor's elements, with the names of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Byte strings: each element is its length (u32) followed by that many bytes.
    Bytes,
    /// Google's 16-bit float: the upper half of an [`DataType::Fp32`].
    Bf16,
}

impl DataType {
    /// Every type.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The protocol's name: `UINT8`, `FP32`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// Bytes of one element; `None` for [`DataType::Bytes`], whose elements differ in length.
    pub const fn byte_size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The type that Triton's model configuration names; `None` for `TYPE_INVALID`, which means "not given".
    pub const fn from_config(value: inference::DataType) -> Option<Self> {
        match value {
            inference::DataType::TypeInvalid => None,
            inference::DataType::TypeBool => Some(Self::Bool),
            inference::DataType::TypeUint8 => Some(Self::Uint8),
            inference::DataType::TypeUint16 => Some(Self::Uint16),
            inference::DataType::TypeUint32 => Some(Self::Uint32),
            inference::DataType::TypeUint64 => Some(Self::Uint64),
            inference::DataType::TypeInt8 => Some(Self::Int8),
            inference::DataType::TypeInt16 => Some(Self::Int16),
            inference::DataType::TypeInt32 => Some(Self::Int32),
            inference::DataType::TypeInt64 => Some(Self::Int64),
            inference::DataType::TypeFp16 => Some(Self::Fp16),
            inference::DataType::TypeFp32 => Some(Self::Fp32),
            inference::DataType::TypeFp64 => Some(Self::Fp64),
            inference::DataType::TypeString => Some(Self::Bytes),
            inference::DataType::TypeBf16 => Some(Self::Bf16),
        }
    }
}

impl From<DataType> for inference::DataType {
    fn from(value: DataType) -> Self {
        match value {
            DataType::Bool => Self::TypeBool,
            DataType::Uint8 => Self::TypeUint8,
            DataType::Uint16 => Self::TypeUint16,
            DataType::Uint32 => Self::TypeUint32,
            DataType::Uint64 => Self::TypeUint64,
            DataType::Int8 => Self::TypeInt8,
            DataType::Int16 => Self::TypeInt16,
            DataType::Int32 => Self::TypeInt32,
            DataType::Int64 => Self::TypeInt64,
            DataType::Fp16 => Self::TypeFp16,
            DataType::Fp32 => Self::TypeFp32,
            DataType::Fp64 => Self::TypeFp64,
            DataType::Bytes => Self::TypeString,
            DataType::Bf16 => Self::TypeBf16,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no [`DataType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no data type: use BOOL, UINT8, INT64, FP16, FP32, BYTES or another of the Open Inference Protocol."
)]
pub struct ParseDataTypeError(String);

impl FromStr for DataType {
    type Err = ParseDataTypeError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|datatype| datatype.as_str() == value)
            .ok_or_else(|| ParseDataTypeError(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_data_type_survives_its_name_and_its_number() {
        for datatype in DataType::ALL {
            assert_eq!(datatype.as_str().parse::<DataType>().unwrap(), datatype);
            assert_eq!(DataType::from_config(inference::DataType::from(datatype)), Some(datatype));
        }
        assert!("float32".parse::<DataType>().is_err());
        assert_eq!(DataType::from_config(inference::DataType::TypeInvalid), None);
    }
}
