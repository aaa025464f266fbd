//! Between this crate's types and those of the component's interface.
//!
//! What comes out of the component is checked here: it may be somebody else's.

use crate::component::wit;
use crate::{
    Color, Decode, Features, Filter, Fit, ImageTensor, Limits, Placement, Preprocessed, Resize, SandboxError,
    SourceImage,
};

pub(crate) fn options(resize: &Resize) -> wit::Options {
    wit::Options {
        width: resize.width,
        height: resize.height,
        fit: match resize.fit {
            Fit::Stretch => wit::Fit::Stretch,
            Fit::Letterbox => wit::Fit::Letterbox,
            Fit::Crop => wit::Fit::Crop,
        },
        filter: match resize.filter {
            Filter::Nearest => wit::Filter::Nearest,
            Filter::Bilinear => wit::Filter::Bilinear,
            Filter::Bicubic => wit::Filter::Bicubic,
            Filter::Lanczos3 => wit::Filter::Lanczos3,
        },
        color: match resize.color {
            Color::Rgb => wit::Color::Rgb,
            Color::Bgr => wit::Color::Bgr,
            Color::Gray => wit::Color::Gray,
        },
        decode: match resize.decode {
            Decode::Auto => wit::Decode::Auto,
            Decode::Full => wit::Decode::Full,
        },
    }
}

pub(crate) fn tensor(
    result: wit::ImageTensor,
    info: wit::ImageInfo,
    resize: &Resize,
) -> Result<ImageTensor, SandboxError> {
    let expected = resize.pixel_bytes();
    if result.pixels.len() != expected {
        return Err(misbehaved(format!(
            "it returned {} bytes of pixels where {expected} were asked for",
            result.pixels.len()
        )));
    }
    let wit::Placement { x_min, y_min, x_max, y_max } = result.placement;
    let lies = |min: f32, max: f32| min.is_finite() && max.is_finite() && min < max;
    if !lies(x_min, x_max) || !lies(y_min, y_max) {
        return Err(misbehaved("it returned a placement without an area".to_owned()));
    }
    Ok(ImageTensor {
        pixels: result.pixels,
        width: resize.width,
        height: resize.height,
        placement: Placement { x_min, y_min, x_max, y_max },
        features: features(result.features)?,
        source: source(info),
    })
}

pub(crate) fn preprocessed(
    result: wit::Preprocessed,
    info: wit::ImageInfo,
    resize: &Resize,
) -> Result<Preprocessed, SandboxError> {
    Ok(Preprocessed {
        jpeg: result.jpeg,
        width: resize.width,
        height: resize.height,
        features: features(result.features)?,
        source: source(info),
    })
}

fn features(features: wit::Features) -> Result<Features, SandboxError> {
    let wit::Features { mean, std, min, max } = features;
    if !mean.is_finite() || !std.is_finite() {
        return Err(misbehaved("it returned features that are not numbers".to_owned()));
    }
    Ok(Features { mean_brightness: mean, std_brightness: std, min_pixel: min, max_pixel: max })
}

pub(crate) fn error(error: wit::Error, limits: &Limits) -> SandboxError {
    match error {
        wit::Error::NotAnImage => SandboxError::NotAnImage,
        wit::Error::UnsupportedFormat(format) => SandboxError::UnsupportedFormat { format },
        wit::Error::Truncated(detail) => SandboxError::Truncated { detail },
        wit::Error::Corrupt(detail) => SandboxError::Corrupt { detail },
        wit::Error::TooManyPixels(wit::Dimensions { width, height }) => {
            SandboxError::TooManyPixels { width, height, limit: limits.max_pixels }
        }
        wit::Error::OutOfMemory => SandboxError::OutOfMemory { limit_bytes: limits.memory_bytes },
        wit::Error::InvalidOptions(detail) => SandboxError::InvalidOptions { detail },
    }
}

fn source(info: wit::ImageInfo) -> SourceImage {
    SourceImage { width: info.width, height: info.height, format: info.format, mode: info.mode }
}

fn misbehaved(detail: String) -> SandboxError {
    SandboxError::Component { detail }
}
