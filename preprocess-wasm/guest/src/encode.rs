//! Encoding as JPEG.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::error::Error;
use crate::resize::Rgb;

/// Quality of the encoded JPEG, on libjpeg's scale of 1..=100.
pub const JPEG_QUALITY: u8 = 90;

/// Encodes as a baseline JPEG with 4:2:0 chroma.
pub fn jpeg(image: &Rgb) -> Result<Vec<u8>, Error> {
    let side = |pixels: u32| {
        u16::try_from(pixels)
            .map_err(|_| Error::InvalidOptions(format!("a JPEG cannot be {pixels} pixels long")))
    };
    let (width, height) = (side(image.width)?, side(image.height)?);
    let mut jpeg = Vec::with_capacity(image.pixels.len() / 6);
    let mut encoder = Encoder::new(&mut jpeg, JPEG_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder
        .encode(&image.pixels, width, height, ColorType::Rgb)
        .map_err(|error| Error::InvalidOptions(format!("the result cannot be encoded as JPEG: {error}")))?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_nearly_the_same() {
        let (width, height) = (33, 17);
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [x as u8 * 7, y as u8 * 15, 128]))
            .collect();
        let encoded = jpeg(&Rgb { width, height, pixels: pixels.clone() }).unwrap();
        let decoded = image::load_from_memory(&encoded).unwrap().into_rgb8();
        assert_eq!(decoded.dimensions(), (width, height));
        let difference: u64 =
            decoded.as_raw().iter().zip(&pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(difference / (pixels.len() as u64) < 6, "mean difference {difference} / {}", pixels.len());
    }
}
