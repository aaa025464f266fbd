//! PNG, WebP, GIF, BMP and TIFF, by the `image` crate.

use std::error::Error as StdError;
use std::io::{self, Cursor};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::{ParameterErrorKind, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use super::{Format, Header, mode};
use crate::error::Error;

/// An image whose header has been read.
pub(super) struct Raster<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
}

impl<'a> Raster<'a> {
    pub(super) fn open(bytes: &'a [u8], format: Format) -> Result<(Header, Self), Error> {
        if format == Format::WebP {
            check_riff_size(bytes)?;
        }
        let mut decoder = decoder(bytes, format).map_err(classify)?;
        decoder.set_limits(limits()).map_err(classify)?;
        let (width, height) = decoder.dimensions();
        // A damaged EXIF block does not make the pixels worse.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mode = mode::of(format, bytes, decoder.original_color_type());
        Ok((Header { width, height, orientation, format, mode }, Self { decoder }))
    }

    /// RGB as stored, transparency laid over white.
    pub(super) fn decode(self) -> Result<Vec<u8>, Error> {
        Ok(flatten(DynamicImage::from_decoder(self.decoder).map_err(classify)?))
    }
}

fn decoder<'a>(bytes: &'a [u8], format: Format) -> Result<Box<dyn ImageDecoder + 'a>, ImageError> {
    let reader = Cursor::new(bytes);
    Ok(match format {
        Format::Png => Box::new(PngDecoder::with_limits(reader, limits())?),
        Format::WebP => Box::new(WebPDecoder::new(reader)?),
        Format::Gif => Box::new(GifDecoder::new(reader)?),
        Format::Bmp => Box::new(BmpDecoder::new(reader)?),
        Format::Tiff => Box::new(TiffDecoder::new(reader)?),
        Format::Jpeg => unreachable!("JPEG has a decoder of its own"),
    })
}

/// The sandbox caps the memory; this only keeps sizes within what a 32-bit address space can count.
fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 << 30);
    limits
}

/// A RIFF header declares the size of the file: its decoder would fill what is missing with anything.
fn check_riff_size(bytes: &[u8]) -> Result<(), Error> {
    let declared = match bytes.get(4..8) {
        Some(&[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])) + 8,
        _ => 12,
    };
    if declared > bytes.len() as u64 {
        return Err(Error::Truncated(format!("{} of {declared} bytes are there", bytes.len())));
    }
    Ok(())
}

/// 8 bits by keeping the high byte of 16, as libpng and Pillow do; transparency over white.
fn flatten(image: DynamicImage) -> Vec<u8> {
    let high = |sample: u16| (sample >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => image.as_raw().iter().flat_map(|&grey| [grey; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => {
            image.as_raw().chunks_exact(2).flat_map(|la| over_white([la[0]; 3], la[1])).collect()
        }
        DynamicImage::ImageRgba8(image) => image
            .as_raw()
            .chunks_exact(4)
            .flat_map(|rgba| over_white([rgba[0], rgba[1], rgba[2]], rgba[3]))
            .collect(),
        DynamicImage::ImageLuma16(image) => image.as_raw().iter().flat_map(|&grey| [high(grey); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image
            .as_raw()
            .chunks_exact(2)
            .flat_map(|la| over_white([high(la[0]); 3], high(la[1])))
            .collect(),
        DynamicImage::ImageRgb16(image) => image.as_raw().iter().map(|&sample| high(sample)).collect(),
        DynamicImage::ImageRgba16(image) => image
            .as_raw()
            .chunks_exact(4)
            .flat_map(|rgba| over_white([high(rgba[0]), high(rgba[1]), high(rgba[2])], high(rgba[3])))
            .collect(),
        // Floating point, 0..1.
        DynamicImage::ImageRgba32F(image) => DynamicImage::from(image)
            .into_rgba8()
            .as_raw()
            .chunks_exact(4)
            .flat_map(|rgba| over_white([rgba[0], rgba[1], rgba[2]], rgba[3]))
            .collect(),
        other => other.into_rgb8().into_raw(),
    }
}

fn over_white(color: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    color.map(|c| ((u32::from(c) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

fn classify(error: ImageError) -> Error {
    if ends_early(&error) {
        return Error::Truncated("the data end before the image does".to_owned());
    }
    match error {
        ImageError::Unsupported(error) => Error::UnsupportedFormat(match error.kind() {
            UnsupportedErrorKind::Color(color) => format!("pixels of type {color:?}"),
            UnsupportedErrorKind::GenericFeature(feature) => feature,
            _ => error.to_string(),
        }),
        ImageError::Limits(_) => Error::OutOfMemory,
        ImageError::Parameter(error) if matches!(error.kind(), ParameterErrorKind::NoMoreData) => {
            Error::Truncated("there is no frame in it".to_owned())
        }
        other => Error::Corrupt(other.to_string().trim_end_matches('.').to_owned()),
    }
}

/// Whether an end of file is at the root of an error.
fn ends_early(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparency_is_laid_over_white() {
        assert_eq!(over_white([10, 20, 30], 255), [10, 20, 30]);
        assert_eq!(over_white([10, 20, 30], 0), [255, 255, 255]);
        assert_eq!(over_white([0, 0, 0], 128), [127, 127, 127]);
    }
}
