//! Encoding as JPEG.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::color::Resized;
use crate::error::Error;
use crate::resize::Color;

/// Quality of the encoded JPEG, on libjpeg's scale of 1..=100.
pub const JPEG_QUALITY: u8 = 90;

/// Encodes as a baseline JPEG with 4:2:0 chroma.
pub fn jpeg(image: &Resized) -> Result<Vec<u8>, Error> {
    let side = |pixels: u32| {
        u16::try_from(pixels)
            .map_err(|_| Error::InvalidOptions(format!("a JPEG cannot be {pixels} pixels long")))
    };
    let (width, height) = (side(image.width)?, side(image.height)?);
    let mut jpeg = Vec::with_capacity(image.pixels.len() / 4);
    let mut encoder = Encoder::new(&mut jpeg, JPEG_QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let color = match image.color {
        Color::Rgb => ColorType::Rgb,
        Color::Bgr => ColorType::Bgr,
        Color::Gray => ColorType::Luma,
    };
    encoder
        .encode(&image.pixels, width, height, color)
        .map_err(|error| Error::InvalidOptions(format!("the result cannot be encoded as JPEG: {error}")))?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::resize::Rgb;

    fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
    }

    #[test]
    fn what_is_encoded_decodes_to_nearly_the_same() {
        let (width, height) = (33, 17);
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [x as u8 * 7, y as u8 * 15, 128]))
            .collect();
        let rgb = Rgb { width, height, pixels: pixels.clone() };
        for color in [Color::Rgb, Color::Bgr] {
            let encoded = jpeg(&Resized::of(rgb.clone(), color)).unwrap();
            let decoded = image::load_from_memory(&encoded).unwrap().into_rgb8();
            assert_eq!(decoded.dimensions(), (width, height));
            assert!(mean_difference(decoded.as_raw(), &pixels) < 6.0, "{color:?}");
        }
        let gray = Resized::of(rgb, Color::Gray);
        let decoded = image::load_from_memory(&jpeg(&gray).unwrap()).unwrap().into_luma8();
        assert!(mean_difference(decoded.as_raw(), &gray.pixels) < 2.0);
    }
}
