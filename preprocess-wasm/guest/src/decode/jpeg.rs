//! JPEG: what it is, and its pixels. Baseline is decoded by [`crate::jpeg`]; what that refuses, progressive and CMYK
//! among it, by `jpeg-decoder`, which is strict about data that end early, has simd128 code and can scale.

use image::metadata::Orientation;
use jpeg_decoder::{CodingProcess, ColorTransform, Error as JpegError, PixelFormat};

use super::{Format, Header, whole};
use crate::error::Error;
use crate::jpeg::Baseline;
use crate::planar;
use crate::resize::{Decode, Filter, Options, Target};

/// A JPEG whose header has been read.
pub(super) struct Jpeg<'a> {
    bytes: &'a [u8],
    decoder: jpeg_decoder::Decoder<&'a [u8]>,
    transform: Option<ColorTransform>,
    /// Of what the decoder gives.
    size: (u32, u32),
    pixel_format: PixelFormat,
    markers: Markers,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<(Header, Self), Error> {
        let mut decoder = jpeg_decoder::Decoder::new(bytes);
        decoder.read_info().map_err(classify)?;
        let info =
            decoder.info().ok_or_else(|| Error::Corrupt("a JPEG without a frame header".to_owned()))?;
        let mode = match (info.coding_process, info.pixel_format) {
            (CodingProcess::Lossless, _) | (_, PixelFormat::L16) => {
                return Err(Error::UnsupportedFormat("lossless JPEG".to_owned()));
            }
            (_, PixelFormat::L8) => "L",
            (_, PixelFormat::RGB24) => "RGB",
            (_, PixelFormat::CMYK32) => "CMYK",
        };
        let markers = Markers::read(bytes);
        let transform = markers.color_transform(info.pixel_format);
        if let Some(transform) = transform {
            decoder.set_color_transform(transform);
        }
        let orientation =
            decoder.exif_data().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
        let (width, height) = (u32::from(info.width), u32::from(info.height));
        let header = Header { width, height, orientation, format: Format::Jpeg, mode };
        let size = (width, height);
        Ok((header, Self { bytes, decoder, transform, size, pixel_format: info.pixel_format, markers }))
    }

    /// RGB of the target's inner size, as stored.
    pub(super) fn resized(mut self, target: &Target, options: &Options) -> Result<Vec<u8>, Error> {
        if self.is_gray_or_ycc()
            && let Some(baseline) = Baseline::open(self.bytes).filter(|jpeg| self.is_ycc(jpeg))
            && let Some(pixels) = planar::jpeg(&baseline, target, options)
        {
            return Ok(pixels);
        }
        let mut scale = 1.0;
        if options.decode == Decode::Auto && options.filter != Filter::Nearest {
            scale = self.scale(target)?;
        }
        let (width, height) = self.size;
        target.resample(&whole(width, height, self.decode()?)?, scale)
    }

    /// Whether the markers leave it at Y or YCbCr.
    fn is_gray_or_ycc(&self) -> bool {
        match self.pixel_format {
            PixelFormat::L8 => true,
            PixelFormat::RGB24 => matches!(self.transform, None | Some(ColorTransform::YCbCr)),
            PixelFormat::CMYK32 | PixelFormat::L16 => false,
        }
    }

    /// Whether the components' names do not say otherwise.
    fn is_ycc(&self, jpeg: &Baseline<'_>) -> bool {
        self.transform.is_some() || !jpeg.is_named_rgb()
    }

    /// Lets the decoder scale to the smaller of a quarter and a half that has twice the target's pixels in each direction. Gives the
    /// scale; the size is then what the decoder will give, rounded up.
    fn scale(&mut self, target: &Target) -> Result<f64, Error> {
        let is_enough = |eighths: &u32| {
            let scale = f64::from(*eighths) / 8.0;
            target.visible.0 * scale >= 2.0 * f64::from(target.inner.0)
                && target.visible.1 * scale >= 2.0 * f64::from(target.inner.1)
        };
        // At an eighth the decoder gives the mean of each block, of which colour mostly has half as many: more than a level off.
        let Some(eighths) = [2, 4].into_iter().find(is_enough) else { return Ok(1.0) };
        let side = |pixels: u32| u16::try_from((pixels * eighths).div_ceil(8)).unwrap_or(u16::MAX);
        let (width, height) = self.decoder.scale(side(self.size.0), side(self.size.1)).map_err(classify)?;
        self.size = (u32::from(width), u32::from(height));
        Ok(f64::from(eighths) / 8.0)
    }

    /// RGB as stored. Data that end before the image's end marker are truncated, never a half grey image.
    pub(super) fn decode(mut self) -> Result<Vec<u8>, Error> {
        let pixels = self.decoder.decode().map_err(classify)?;
        Ok(match self.pixel_format {
            PixelFormat::RGB24 => pixels,
            PixelFormat::L8 => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
            PixelFormat::CMYK32 => cmyk_to_rgb(&pixels, self.markers.adobe_transform.is_some()),
            PixelFormat::L16 => return Err(Error::UnsupportedFormat("lossless JPEG".to_owned())),
        })
    }
}

/// The decoder hands out 255 less what is stored. Adobe's programs store CMYK inverted, so that is ink; in a file
/// without Adobe's marker what is stored is ink. (Pillow and libjpeg take it so.)
fn cmyk_to_rgb(pixels: &[u8], adobe: bool) -> Vec<u8> {
    let paper = |value: u8| u32::from(if adobe { 255 - value } else { value });
    pixels
        .chunks_exact(4)
        .flat_map(|cmyk| {
            let white = paper(cmyk[3]);
            [cmyk[0], cmyk[1], cmyk[2]].map(|ink| ((paper(ink) * white + 127) / 255) as u8)
        })
        .collect()
}

/// What the application markers say about colour.
#[derive(Debug, Default, PartialEq, Eq)]
struct Markers {
    jfif: bool,
    adobe_transform: Option<u8>,
}

impl Markers {
    /// Walks the segments before the first scan (ITU T.81, annex B.1.1.4).
    fn read(bytes: &[u8]) -> Self {
        let mut markers = Self::default();
        let mut rest = bytes.get(2..).unwrap_or_default();
        while let [0xff, marker, after @ ..] = rest {
            match marker {
                0xff => {
                    rest = &rest[1..];
                    continue;
                }
                0xda | 0xd9 => break,
                _ => {}
            }
            let [high, low, ..] = after else { break };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (Some(segment), Some(next)) = (after.get(2..length), after.get(length..)) else { break };
            match marker {
                0xe0 if segment.starts_with(b"JFIF\0") => markers.jfif = true,
                0xee if segment.starts_with(b"Adobe") => markers.adobe_transform = segment.get(11).copied(),
                _ => {}
            }
            rest = next;
        }
        markers
    }

    /// Which colour space the components are in, by the rules of libjpeg's `default_decompress_parms`; `None`
    /// leaves it to the decoder, which then goes by the components' identifiers as libjpeg does.
    fn color_transform(&self, pixels: PixelFormat) -> Option<ColorTransform> {
        match (pixels, self.jfif, self.adobe_transform) {
            (PixelFormat::RGB24, true, _) => Some(ColorTransform::YCbCr),
            (PixelFormat::RGB24, false, Some(0)) => Some(ColorTransform::RGB),
            (PixelFormat::RGB24, false, Some(_)) => Some(ColorTransform::YCbCr),
            (PixelFormat::CMYK32, _, None | Some(0)) => Some(ColorTransform::CMYK),
            (PixelFormat::CMYK32, _, Some(_)) => Some(ColorTransform::YCCK),
            (PixelFormat::RGB24, false, None) | (PixelFormat::L8 | PixelFormat::L16, ..) => None,
        }
    }
}

fn classify(error: JpegError) -> Error {
    match error {
        JpegError::Io(_) => Error::Truncated("the JPEG data end before the image does".to_owned()),
        JpegError::Unsupported(feature) => Error::UnsupportedFormat(format!("JPEG with {feature:?}")),
        JpegError::Format(detail) => Error::Corrupt(format!("not a valid JPEG, {detail}")),
        JpegError::Internal(error) => Error::Corrupt(format!("not a valid JPEG, {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_between_others() {
        let mut bytes = b"\xff\xd8\xff\xe0\x00\x07JFIF\0\xff\xfe\x00\x04hi".to_vec();
        bytes.extend(b"\xff\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\x02\xff\xda\x00\x02");
        assert_eq!(Markers::read(&bytes), Markers { jfif: true, adobe_transform: Some(2) });
        for end in 0..bytes.len() {
            Markers::read(&bytes[..end]);
        }
    }

    #[test]
    fn cmyk_is_ink_or_inverted_ink() {
        // The decoder's output for stored 0, 0, 0, 0: no ink if there is no Adobe marker, all ink if there is.
        assert_eq!(cmyk_to_rgb(&[255; 4], false), [255; 3]);
        assert_eq!(cmyk_to_rgb(&[255; 4], true), [0; 3]);
        assert_eq!(cmyk_to_rgb(&[0, 255, 255, 0], true), [255, 0, 0]);
    }
}
