//! Encoded bytes to upright-able RGB: what format it is, what its header says, and its pixels.

mod jpeg;
mod mode;
mod raster;
mod sniff;

pub use image::metadata::Orientation;

use crate::error::Error;
use crate::resize::{Options, Placement, Rgb, Target};

pub(crate) use raster::over_white;
pub use sniff::Format;

/// What an image's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Width in pixels as stored, before the orientation is applied.
    pub width: u32,
    /// Height in pixels as stored.
    pub height: u32,
    /// How the stored image is to be turned.
    pub orientation: Orientation,
    /// The container format.
    pub format: Format,
    /// Pixel layout in Pillow's words.
    pub mode: &'static str,
}

impl Header {
    /// Width and height of the upright image.
    pub fn upright(&self) -> (u32, u32) {
        if swaps_sides(self.orientation) { (self.height, self.width) } else { (self.width, self.height) }
    }
}

/// Whether the upright image's width is the stored image's height.
pub fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// An image whose header has been read and found acceptable, and whose pixels have not been decoded yet.
pub struct Source<'a> {
    header: Header,
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    Jpeg(Box<jpeg::Jpeg<'a>>),
    Raster(raster::Raster<'a>),
}

impl<'a> Source<'a> {
    /// Reads the header and refuses more than `max_pixels` before anything is allocated for the pixels.
    pub fn open(bytes: &'a [u8], max_pixels: u64) -> Result<Self, Error> {
        let format = Format::of(bytes)?;
        if let Some((width, height)) = sniff::early_dimensions(format, bytes) {
            check_pixels(width, height, max_pixels)?;
        }
        let (header, decoder) = match format {
            Format::Jpeg => {
                let (header, jpeg) = jpeg::Jpeg::open(bytes)?;
                (header, Decoder::Jpeg(Box::new(jpeg)))
            }
            Format::Png | Format::WebP | Format::Gif | Format::Bmp | Format::Tiff => {
                let (header, raster) = raster::Raster::open(bytes, format)?;
                (header, Decoder::Raster(raster))
            }
        };
        check_pixels(header.width, header.height, max_pixels)?;
        Ok(Self { header, decoder })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The upright image in the size that is asked for.
    pub fn resized(self, options: &Options) -> Result<(Rgb, Placement), Error> {
        let Header { width, height, orientation, .. } = self.header;
        let target = Target::new((width, height), orientation, options);
        let pixels = match self.decoder {
            Decoder::Jpeg(jpeg) => jpeg.resized(&target, options)?,
            Decoder::Raster(raster) => raster.resized(&target, options)?,
        };
        Ok(target.finish(pixels))
    }

    /// The pixels as stored (not turned upright), 8 bits, transparency laid over white.
    pub fn decode(self) -> Result<Rgb, Error> {
        let (width, height) = (self.header.width, self.header.height);
        let pixels = match self.decoder {
            Decoder::Jpeg(jpeg) => jpeg.decode()?,
            Decoder::Raster(raster) => raster.decode()?,
        };
        whole(width, height, pixels)
    }
}

/// Pixels that must be as many as there have to be.
fn whole(width: u32, height: u32, pixels: Vec<u8>) -> Result<Rgb, Error> {
    if pixels.len() as u64 != u64::from(width) * u64::from(height) * 3 {
        return Err(Error::Corrupt("its pixels are not as many as its header declares".to_owned()));
    }
    Ok(Rgb { width, height, pixels })
}

fn check_pixels(width: u32, height: u32, max_pixels: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::Corrupt(format!("its header declares {width}x{height} pixels")));
    }
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Error::TooManyPixels { width, height });
    }
    Ok(())
}

#[cfg(test)]
mod container_tests;
#[cfg(test)]
mod tests;
