//! The component's three functions, in plain Rust.

use crate::color::Resized;
use crate::decode::Source;
use crate::encode;
use crate::error::Error;
use crate::features::Features;
use crate::resize::{Options, Placement};

/// What an encoded image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Width of the upright image in pixels.
    pub width: u32,
    /// Height of the upright image in pixels.
    pub height: u32,
    /// Container format as Pillow names it.
    pub format: &'static str,
    /// Pixel layout as Pillow names it.
    pub mode: &'static str,
}

/// Reads the header only.
pub fn probe(bytes: &[u8], max_pixels: u64) -> Result<ImageInfo, Error> {
    Ok(info(&Source::open(bytes, max_pixels)?))
}

/// What a model takes of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its pixels, in the size and the colours that were asked for.
    pub image: Resized,
    /// Where the upright image lies in it.
    pub placement: Placement,
    /// Measured over all its bytes.
    pub features: Features,
}

/// Decodes, resizes and measures.
pub fn tensor(bytes: &[u8], options: &Options, max_pixels: u64) -> Result<Tensor, Error> {
    options.validate()?;
    let source = Source::open(bytes, max_pixels)?;
    let (rgb, placement) = source.resized(options)?;
    let image = Resized::of(rgb, options.color);
    let features = Features::of(&image.pixels);
    Ok(Tensor { image, placement, features })
}

/// Decodes, resizes, measures and encodes as JPEG again.
pub fn preprocess(bytes: &[u8], options: &Options, max_pixels: u64) -> Result<(Vec<u8>, Features), Error> {
    let Tensor { image, features, .. } = tensor(bytes, options, max_pixels)?;
    Ok((encode::jpeg(&image)?, features))
}

fn info(source: &Source<'_>) -> ImageInfo {
    let header = source.header();
    let (width, height) = header.upright();
    ImageInfo { width, height, format: header.format.name(), mode: header.mode }
}
