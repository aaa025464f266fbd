//! The parameter `classification` of an output: its largest values as text, as Triton writes them.

use std::cmp::Ordering;
use std::fmt::Display;
use std::sync::Arc;

use crate::error::ServingError;
use crate::tensor::{DataType, Shape, Tensor};

/// Whether values of this type can be ranked, in Triton as here.
pub(super) fn classifiable(datatype: DataType) -> bool {
    !matches!(datatype, DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes)
}

/// The names of an output's classes, by their index.
pub(crate) type Labels = [Arc<str>];

/// Bytes that a value takes as a text, with the text's place in a list and without its label.
const TEXT_BYTES: usize = 64;

fn rows(output: &Tensor, batched: bool) -> usize {
    if batched { output.shape.first().map_or(1, |&rows| usize::try_from(rows).unwrap_or(1)) } else { 1 }
}

/// About how many bytes [`classify`] takes and goes through.
pub(super) fn cost(output: &Tensor, batched: bool, classes: usize) -> usize {
    let values = output.data.len() / output.datatype.byte_size().unwrap_or(1);
    let classes = classes.saturating_mul(rows(output, batched)).min(values);
    // The values, each of them with its place, and the texts.
    output.data.len() + values * size_of::<(usize, u64)>() + classes * TEXT_BYTES
}

/// The `classes` largest values of each row of `output` (of the whole of it without a batch dimension), largest first,
/// as BYTES `[rows,classes]`: `value:index`, and `:label` where there is one. Floats have six decimals. Equal values
/// are in the order of their indices; NaN is smaller than anything.
///
/// # Errors
/// `InvalidInput` for a type that has no order or that Triton does not classify.
pub(crate) fn classify(
    output: &Tensor,
    batched: bool,
    classes: usize,
    labels: &Labels,
) -> Result<Tensor, ServingError> {
    let rows = rows(output, batched);
    let data = &*output.data;
    macro_rules! texts {
        ($type:ty, $compare:expr, $text:expr) => {
            of_rows(data, rows, classes, labels, <$type>::from_le_bytes, $compare, $text)
        };
    }
    let texts = match output.datatype {
        DataType::Uint8 => texts!(u8, Ord::cmp, whole),
        DataType::Uint16 => texts!(u16, Ord::cmp, whole),
        DataType::Uint32 => texts!(u32, Ord::cmp, whole),
        DataType::Uint64 => texts!(u64, Ord::cmp, whole),
        DataType::Int8 => texts!(i8, Ord::cmp, whole),
        DataType::Int16 => texts!(i16, Ord::cmp, whole),
        DataType::Int32 => texts!(i32, Ord::cmp, whole),
        DataType::Int64 => texts!(i64, Ord::cmp, whole),
        DataType::Fp32 => texts!(f32, |a, b| ascending(f64::from(*a), f64::from(*b)), |v| format!("{v:.6}")),
        DataType::Fp64 => texts!(f64, |a, b| ascending(*a, *b), |v| format!("{v:.6}")),
        DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
            return Err(ServingError::InvalidInput(format!(
                "Output `{}` is {}, which cannot be classified: leave out its parameter `classification`.",
                output.name, output.datatype
            )));
        }
    };
    let per_row = texts.len() / rows.max(1);
    let dims = [rows, per_row].map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
    let shape = if batched { Shape::from(dims) } else { Shape::from([dims[1]]) };
    Ok(Tensor { shape, ..Tensor::from_byte_strings(output.name.clone(), texts) })
}

fn of_rows<T: Copy, const N: usize>(
    data: &[u8],
    rows: usize,
    classes: usize,
    labels: &Labels,
    read: impl Fn([u8; N]) -> T,
    compare: impl Fn(&T, &T) -> Ordering,
    text: impl Fn(&T) -> String,
) -> Vec<String> {
    let values: Vec<T> = data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect();
    let per_row = values.len().checked_div(rows).unwrap_or(0);
    if per_row == 0 {
        return Vec::new();
    }
    let better = |(a_at, a): &(usize, T), (b_at, b): &(usize, T)| compare(b, a).then(a_at.cmp(b_at));
    let mut texts = Vec::new();
    for row in values.chunks_exact(per_row) {
        let mut ranked: Vec<(usize, T)> = row.iter().copied().enumerate().collect();
        // Only what is asked for is put into order.
        if classes < ranked.len() {
            ranked.select_nth_unstable_by(classes, better);
            ranked.truncate(classes);
        }
        ranked.sort_unstable_by(better);
        texts.extend(ranked.iter().map(|(index, value)| match labels.get(*index) {
            Some(label) if !label.is_empty() => format!("{}:{index}:{label}", text(value)),
            _ => format!("{}:{index}", text(value)),
        }));
    }
    texts
}

fn whole(value: &impl Display) -> String {
    value.to_string()
}

fn ascending(a: f64, b: f64) -> Ordering {
    // One of them is NaN where they cannot be compared.
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn floats(shape: &[i64], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor {
            name: "y".to_owned(),
            datatype: DataType::Fp32,
            shape: Shape::from(shape),
            data: data.into(),
        }
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.byte_strings().unwrap().iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_text_is_tritons() {
        let labels: Vec<Arc<str>> = ["cat".into(), "dog".into()].into();
        let output = floats(&[2, 3], &[0.25, 0.5, 0.125, 1.0, f32::NAN, -2.0]);
        let answer = classify(&output, true, 2, &labels).unwrap();
        assert_eq!((answer.datatype, &answer.shape[..]), (DataType::Bytes, &[2, 2][..]));
        assert_eq!(texts(&answer), ["0.500000:1:dog", "0.250000:0:cat", "1.000000:0:cat", "-2.000000:2"]);
    }

    #[test]
    fn the_cost_grows_with_the_values_and_with_what_is_asked_for() {
        let output = floats(&[2, 500], &[0.5; 1000]);
        assert_eq!(cost(&output, true, 1), 4_000 + 16_000 + 2 * TEXT_BYTES);
        assert_eq!(cost(&output, false, 1), 4_000 + 16_000 + TEXT_BYTES);
        for all in [500, usize::MAX] {
            assert_eq!(cost(&output, true, all), 4_000 + 16_000 + 1000 * TEXT_BYTES);
        }
    }

    #[test]
    fn more_classes_than_there_are_is_all_of_them() {
        let output = Tensor { datatype: DataType::Uint8, data: vec![3, 200, 3].into(), ..floats(&[3], &[]) };
        let answer = classify(&output, false, usize::MAX, &[]).unwrap();
        assert_eq!(&answer.shape[..], &[3]);
        assert_eq!(texts(&answer), ["200:1", "3:0", "3:2"]);
    }

    #[test]
    fn what_has_no_order_is_the_callers_mistake() {
        let output = Tensor { datatype: DataType::Bytes, ..floats(&[0], &[]) };
        assert!(matches!(classify(&output, false, 1, &[]), Err(ServingError::InvalidInput(_))));
        let empty = classify(&floats(&[2, 0], &[]), true, 3, &[]).unwrap();
        assert_eq!(&empty.shape[..], &[2, 0]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_full_sort(rows in 1_usize..4, row in 1_usize..9, classes in 1_usize..12, seed in any::<u32>()) {
            let values: Vec<f32> = (0..rows * row).map(|i| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / 1e9).collect();
            let answer = classify(&floats(&[rows as i64, row as i64], &values), true, classes, &[]).unwrap();
            let mut expected = Vec::new();
            for row in values.chunks(row) {
                let mut order: Vec<usize> = (0..row.len()).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                expected.extend(order.iter().take(classes).map(|&i| format!("{:.6}:{i}", row[i])));
            }
            prop_assert_eq!(texts(&answer), expected);
        }
    }
}
