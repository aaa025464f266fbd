//! What the guest gives back for an image.

use crate::Placement;

/// An image as a model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageTensor {
    /// Interleaved (height, width, channel): `width * height * 3` bytes, of gray a third.
    pub pixels: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Where the image lies in the tensor.
    pub placement: Placement,
    /// Measured over all bytes of `pixels`.
    pub features: Features,
    /// What the sender's image was.
    pub source: SourceImage,
}

/// An image resized, measured and encoded again.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessed {
    /// The resized image as a baseline JPEG.
    pub jpeg: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Measured before the image was encoded.
    pub features: Features,
    /// What the sender's image was.
    pub source: SourceImage,
}

/// Statistics over all bytes of a resized image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Mean, 0..=255.
    pub mean_brightness: f64,
    /// Population standard deviation.
    pub std_brightness: f64,
    /// Smallest byte.
    pub min_pixel: u8,
    /// Largest byte.
    pub max_pixel: u8,
}

/// What the sender's image was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImage {
    /// Width of the upright image (EXIF orientation applied) in pixels.
    pub width: u32,
    /// Height of the upright image in pixels.
    pub height: u32,
    /// Container format as Pillow names it: `JPEG`, `PNG`, `WEBP`, `GIF`, `BMP`, `TIFF`.
    pub format: String,
    /// Pixel layout as Pillow names it: `RGB`, `RGBA`, `L`, `LA`, `P`, `CMYK`, `I;16`, …
    pub mode: String,
}
