//! What is sent: rows of a model's input, patterns or a photo.

use super::raw::Input;
use convoy_proto::inference::model_metadata_response::TensorMetadata;
use image::imageops::FilterType;
use model_serving::tensor::{DataType, Shape};
use std::path::Path;

/// Different patterns, which are sent in turn.
const PATTERNS: u8 = 8;

/// Rows for the input that `tensor` describes. Its open dimensions are 1, and its values are in 0..=255, as pixels are.
///
/// # Errors
/// A sentence, for a type or shape that is not measured, and for a photo that cannot be read.
pub(super) fn input(tensor: &TensorMetadata, photo: Option<&Path>) -> Result<Input, String> {
    let datatype: DataType = tensor.datatype.parse().map_err(|error| format!("{error}"))?;
    if !matches!(datatype, DataType::Uint8 | DataType::Fp32) {
        return Err(format!("The model's input is {datatype}: only UINT8 and FP32 are measured."));
    }
    let shape = Shape::from(tensor.shape.iter().map(|&dim| dim.max(1)).collect::<Vec<_>>());
    let values = match photo {
        Some(path) => vec![pixels(path, &shape)?],
        None => (0..PATTERNS).map(|number| pattern(number, shape.element_count().unwrap_or(0))).collect(),
    };
    let row = |values: Vec<u8>| match datatype {
        DataType::Uint8 => values,
        _ => values.into_iter().flat_map(|value| f32::from(value).to_le_bytes()).collect(),
    };
    Ok(Input { name: tensor.name.clone(), datatype, shape, rows: values.into_iter().map(row).collect() })
}

fn pattern(number: u8, count: usize) -> Vec<u8> {
    (0..count).map(|at| (at.wrapping_mul(31) ^ (at >> 7)) as u8 ^ number.wrapping_mul(37)).collect()
}

/// The photo in the size of an image input, `[1,h,w,3]` or `[1,3,h,w]`.
fn pixels(path: &Path, shape: &Shape) -> Result<Vec<u8>, String> {
    let (height, width, planar) = match **shape {
        [1, height, width, 3] => (height, width, false),
        [1, 3, height, width] => (height, width, true),
        _ => return Err(format!("A photo cannot be sent to an input of shape {shape}.")),
    };
    let side = |length: i64| u32::try_from(length).map_err(|_| format!("The shape {shape} is no image's."));
    let photo = image::open(path).map_err(|error| format!("{} cannot be read: {error}.", path.display()))?;
    let photo = photo.resize_exact(side(width)?, side(height)?, FilterType::Triangle).into_rgb8().into_raw();
    Ok(match planar {
        false => photo,
        true => (0..3)
            .flat_map(|plane| photo.iter().skip(plane).step_by(3).copied().collect::<Vec<_>>())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tensor(datatype: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: "x".to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
    }

    #[test]
    fn a_row_has_the_bytes_of_its_shape() {
        let pixels = input(&tensor("UINT8", &[-1, 4, 4, 3]), None).unwrap();
        assert_eq!((pixels.shape.to_vec(), pixels.rows[0].len()), (vec![1, 4, 4, 3], 48));
        assert_ne!(pixels.rows[0], pixels.rows[1]);
        let planar = input(&tensor("FP32", &[-1, 3, 4, 4]), None).unwrap();
        assert_eq!(planar.rows[0].len(), 48 * 4);
        let first = f32::from_le_bytes(planar.rows[0][..4].try_into().unwrap());
        assert!((0.0..=255.0).contains(&first));
        assert!(input(&tensor("BYTES", &[-1]), None).unwrap_err().contains("UINT8 and FP32"));
    }

    #[test]
    fn a_photo_is_sent_interleaved_or_in_planes() {
        let file = tempfile::NamedTempFile::with_suffix(".png").unwrap();
        let photo = image::RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        photo.save(file.path()).unwrap();
        let sent = |shape: &[i64]| input(&tensor("UINT8", shape), Some(file.path())).unwrap().rows;
        assert_eq!(sent(&[-1, 1, 2, 3]), [[1, 2, 3, 4, 5, 6]]);
        assert_eq!(sent(&[-1, 3, 1, 2]), [[1, 4, 2, 5, 3, 6]]);
        assert!(input(&tensor("UINT8", &[-1, 7]), Some(file.path())).is_err());
    }
}
