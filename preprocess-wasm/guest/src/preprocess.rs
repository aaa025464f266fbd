//! The component's three functions, in plain Rust.

use crate::decode::Source;
use crate::encode;
use crate::error::Error;
use crate::features::Features;
use crate::resize::{Options, Placement, Rgb, resize};

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

/// Decodes and resizes.
pub fn tensor(
    bytes: &[u8],
    options: &Options,
    max_pixels: u64,
) -> Result<(Rgb, Placement, ImageInfo), Error> {
    options.validate()?;
    let source = Source::open(bytes, max_pixels)?;
    let info = info(&source);
    let orientation = source.header().orientation;
    let (resized, placement) = resize(&source.decode()?, orientation, options)?;
    Ok((resized, placement, info))
}

/// Decodes, resizes, measures and encodes as JPEG again.
pub fn preprocess(
    bytes: &[u8],
    options: &Options,
    max_pixels: u64,
) -> Result<(Vec<u8>, Features, ImageInfo), Error> {
    let (resized, _, info) = tensor(bytes, options, max_pixels)?;
    let features = Features::of(&resized.pixels);
    Ok((encode::jpeg(&resized)?, features, info))
}

fn info(source: &Source<'_>) -> ImageInfo {
    let header = source.header();
    let (width, height) = header.upright();
    ImageInfo { width, height, format: header.format.name(), mode: header.mode }
}
