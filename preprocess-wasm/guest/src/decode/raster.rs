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
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageError, Limits};

use super::{Format, Header, mode, whole};
use crate::error::Error;
use crate::planar;
use crate::png::Png;
use crate::resize::{Options, Target};

/// An image whose header has been read.
pub(super) struct Raster<'a> {
    bytes: &'a [u8],
    size: (u32, u32),
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
        Ok((
            Header { width, height, orientation, format, mode },
            Self { bytes, size: (width, height), decoder },
        ))
    }

    /// RGB of the target's inner size, as stored.
    pub(super) fn resized(self, target: &Target, options: &Options) -> Result<Vec<u8>, Error> {
        if let Some(png) = Png::open(self.bytes)
            && let Some(pixels) = planar::png(&png, target, options)
        {
            return Ok(pixels);
        }
        let (width, height) = self.size;
        target.resample(&whole(width, height, self.decode()?)?, 1.0)
    }

    /// RGB as stored, transparency laid over white.
    pub(super) fn decode(self) -> Result<Vec<u8>, Error> {
        let color = self.decoder.color_type();
        let bytes = usize::try_from(self.decoder.total_bytes()).map_err(|_| Error::OutOfMemory)?;
        let mut samples = vec![0; bytes];
        self.decoder.read_image_boxed(&mut samples).map_err(classify)?;
        flatten(samples, color)
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

/// 8 bits by keeping the high byte of 16, as libpng and Pillow do; transparency over white. Samples wider than a
/// byte are in the machine's order.
fn flatten(samples: Vec<u8>, color: ColorType) -> Result<Vec<u8>, Error> {
    let high = |at: &[u8]| (u16::from_ne_bytes([at[0], at[1]]) >> 8) as u8;
    let float =
        |at: &[u8]| (f32::from_ne_bytes([at[0], at[1], at[2], at[3]]).clamp(0.0, 1.0) * 255.0).round() as u8;
    Ok(match color {
        ColorType::Rgb8 => samples,
        ColorType::L8 => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::La8 => samples.chunks_exact(2).flat_map(|la| over_white([la[0]; 3], la[1])).collect(),
        ColorType::Rgba8 => samples
            .chunks_exact(4)
            .flat_map(|rgba| over_white([rgba[0], rgba[1], rgba[2]], rgba[3]))
            .collect(),
        ColorType::L16 => samples.chunks_exact(2).flat_map(|grey| [high(grey); 3]).collect(),
        ColorType::Rgb16 => samples.chunks_exact(2).map(high).collect(),
        ColorType::La16 => {
            samples.chunks_exact(4).flat_map(|la| over_white([high(la); 3], high(&la[2..]))).collect()
        }
        ColorType::Rgba16 => samples
            .chunks_exact(8)
            .flat_map(|rgba| over_white([high(rgba), high(&rgba[2..]), high(&rgba[4..])], high(&rgba[6..])))
            .collect(),
        ColorType::Rgb32F => samples.chunks_exact(4).map(float).collect(),
        ColorType::Rgba32F => samples
            .chunks_exact(16)
            .flat_map(|rgba| {
                over_white([float(rgba), float(&rgba[4..]), float(&rgba[8..])], float(&rgba[12..]))
            })
            .collect(),
        other => return Err(Error::UnsupportedFormat(format!("pixels of type {other:?}"))),
    })
}

/// A colour of so much opacity, over white.
pub(crate) fn over_white<const N: usize>(color: [u8; N], alpha: u8) -> [u8; N] {
    let alpha = u32::from(alpha);
    color.map(|c| ((u32::from(c) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

fn classify(error: ImageError) -> Error {
    if ends_early(&error) {
        return Error::Truncated("the data end before the image does".to_owned());
    }
    match error {
        ImageError::Unsupported(error) => Error::UnsupportedFormat(match error.kind() {
            UnsupportedErrorKind::Color(ExtendedColorType::Unknown(bits)) => {
                format!("pixels of {bits} bits in an unusual layout")
            }
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
    // `ImageError::IoError` passes itself over in its chain of sources.
    let mut cause: Option<&(dyn StdError + 'static)> = match error {
        ImageError::IoError(io) => Some(io),
        other => Some(other),
    };
    while let Some(error) = cause {
        let of_gif = error.downcast_ref::<gif::DecodingError>();
        let of_io = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(of_gif, Some(gif::DecodingError::UnexpectedEof | gif::DecodingError::EndCodeNotFound))
            || of_io == Some(io::ErrorKind::UnexpectedEof)
        {
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
