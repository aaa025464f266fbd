//! Tensors as they travel between a request and a backend: little-endian, row-major bytes with a type and a shape.

mod data_type;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

pub use data_type::{DataType, ParseDataTypeError};

/// Tensors are little-endian on the wire, and used here as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "model-serving runs on little-endian machines only");

/// Dimensions of a tensor, outermost first. In a model's configuration -1 stands for any size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(Vec<i64>);

impl Shape {
    /// Number of elements; `None` when a dimension is negative or the product does not fit.
    pub fn element_count(&self) -> Option<usize> {
        self.0.iter().try_fold(1_usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))
    }

    /// Bytes of a tensor of this shape; `None` as in [`Shape::element_count`] and for [`DataType::Bytes`].
    pub fn byte_count(&self, datatype: DataType) -> Option<usize> {
        self.element_count()?.checked_mul(datatype.byte_size()?)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[i64] {
        &self.0
    }

    /// The dimensions, owned.
    pub fn into_dims(self) -> Vec<i64> {
        self.0
    }
}

impl Deref for Shape {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl From<Vec<i64>> for Shape {
    fn from(dims: Vec<i64>) -> Self {
        Self(dims)
    }
}

impl From<&[i64]> for Shape {
    fn from(dims: &[i64]) -> Self {
        Self(dims.to_vec())
    }
}

impl<const N: usize> From<[i64; N]> for Shape {
    fn from(dims: [i64; N]) -> Self {
        Self(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

/// What an input or output of a model must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Type of its elements.
    pub datatype: DataType,
    /// Dimensions without the batch dimension; -1 for an open one.
    pub dims: Vec<i64>,
}

/// A named tensor. Cloning it does not copy its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name of the model's input or output.
    pub name: String,
    /// Type of the elements.
    pub datatype: DataType,
    /// Dimensions, with the batch dimension where the model has one.
    pub shape: Shape,
    /// Elements: little-endian, row-major; [`DataType::Bytes`] as length (u32) and bytes each.
    pub data: Bytes,
}

impl Tensor {
    /// A tensor of byte strings, one dimension of as many elements as `elements` gives.
    pub fn from_byte_strings<T: AsRef<[u8]>>(
        name: impl Into<String>,
        elements: impl IntoIterator<Item = T>,
    ) -> Self {
        let mut data = BytesMut::new();
        let mut count = 0;
        for element in elements {
            let element = element.as_ref();
            let length = u32::try_from(element.len()).expect("an element of a BYTES tensor is under 4 GiB");
            data.put_u32_le(length);
            data.put_slice(element);
            count += 1;
        }
        Self {
            name: name.into(),
            datatype: DataType::Bytes,
            shape: Shape::from([count]),
            data: data.freeze(),
        }
    }

    /// The elements of a [`DataType::Bytes`] tensor; `None` when the lengths do not add up to the data.
    pub fn byte_strings(&self) -> Option<Vec<Bytes>> {
        let ends = byte_string_ends(&self.data)?;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Some(starts.zip(&ends).map(|(start, &end)| self.data.slice(start + 4..end)).collect())
    }
}

/// Offsets at which the elements of a [`DataType::Bytes`] tensor end; `None` when the lengths do not add up.
pub fn byte_string_ends(data: &[u8]) -> Option<Vec<usize>> {
    let mut ends = Vec::new();
    let mut at = 0_usize;
    while at < data.len() {
        let length = data.get(at..at.checked_add(4)?)?;
        let length = u32::from_le_bytes(length.try_into().ok()?);
        at = at.checked_add(4)?.checked_add(usize::try_from(length).ok()?)?;
        if at > data.len() {
            return None;
        }
        ends.push(at);
    }
    Some(ends)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_shape_that_overflows_or_is_open_has_no_element_count() {
        assert_eq!(Shape::from([2, 3, 4]).element_count(), Some(24));
        assert_eq!(Shape::default().element_count(), Some(1));
        assert_eq!(Shape::from([2, 0]).element_count(), Some(0));
        assert_eq!(Shape::from([2, -1]).element_count(), None);
        assert_eq!(Shape::from([i64::MAX, i64::MAX]).element_count(), None);
        assert_eq!(Shape::from([i64::MAX / 2, 1]).byte_count(DataType::Fp64), None);
        assert_eq!(Shape::from([1, 300, 300, 3]).to_string(), "[1,300,300,3]");
    }

    #[test]
    fn byte_strings_with_lengths_that_do_not_add_up_are_refused() {
        assert_eq!(byte_string_ends(&[]), Some(vec![]));
        assert_eq!(byte_string_ends(&[1, 0, 0, 0]), None);
        assert_eq!(byte_string_ends(&[0, 0, 0, 0, 9]), None);
        assert_eq!(byte_string_ends(&[255, 255, 255, 255, 1]), None);
    }

    proptest! {
        #[test]
        fn byte_strings_come_back(elements in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6)) {
            let tensor = Tensor::from_byte_strings("t", &elements);
            prop_assert_eq!(tensor.shape.element_count(), Some(elements.len()));
            prop_assert_eq!(tensor.byte_strings().unwrap(), elements);
        }
    }
}
