//! Between this crate's types and those of the component's interface.
//!
//! What comes out of the component is checked here: it may be somebody else's.

use crate::component::wit;
use crate::{
    Color, Decode, Features, Filter, Fit, ImageTensor, Limits, Placement, Preprocessed, Resize, SandboxError,
    SourceImage,
};

mod jpeg;

/// Bytes of the name of a format or a mode. The longest of ours has seven.
const MAX_WORD_BYTES: usize = 32;
/// Characters of a complaint.
const MAX_DETAIL_CHARS: usize = 200;

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
        source: source(info)?,
    })
}

pub(crate) fn preprocessed(
    result: wit::Preprocessed,
    info: wit::ImageInfo,
    resize: &Resize,
) -> Result<Preprocessed, SandboxError> {
    jpeg::check(&result.jpeg, resize).map_err(misbehaved)?;
    Ok(Preprocessed {
        jpeg: result.jpeg,
        width: resize.width,
        height: resize.height,
        features: features(result.features)?,
        source: source(info)?,
    })
}

fn features(features: wit::Features) -> Result<Features, SandboxError> {
    let wit::Features { mean, std, min, max } = features;
    // What bytes can have: not even half of their range of standard deviation is exceeded.
    if !(0.0..=255.0).contains(&mean) || !(0.0..=127.5).contains(&std) || min > max {
        return Err(misbehaved("it returned features that no pixels have".to_owned()));
    }
    Ok(Features { mean_brightness: mean, std_brightness: std, min_pixel: min, max_pixel: max })
}

pub(crate) fn error(error: wit::Error, limits: &Limits) -> SandboxError {
    match error {
        wit::Error::NotAnImage => SandboxError::NotAnImage,
        wit::Error::UnsupportedFormat(format) => SandboxError::UnsupportedFormat { format: text(&format) },
        wit::Error::Truncated(detail) => SandboxError::Truncated { detail: text(&detail) },
        wit::Error::Corrupt(detail) => SandboxError::Corrupt { detail: text(&detail) },
        wit::Error::TooManyPixels(wit::Dimensions { width, height }) => {
            SandboxError::TooManyPixels { width, height, limit: limits.max_pixels }
        }
        wit::Error::OutOfMemory => SandboxError::OutOfMemory { limit_bytes: limits.memory_bytes },
        wit::Error::InvalidOptions(detail) => SandboxError::InvalidOptions { detail: text(&detail) },
    }
}

/// A text for people, in one line of bounded length.
fn text(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_DETAIL_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.replace(char::is_control, " ")
}

fn source(info: wit::ImageInfo) -> Result<SourceImage, SandboxError> {
    for (what, word) in [("format", &info.format), ("mode", &info.mode)] {
        if word.len() > MAX_WORD_BYTES || !word.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let bytes = word.len();
            return Err(misbehaved(format!(
                "it returned a {what} of {bytes} bytes that is no word of at most {MAX_WORD_BYTES} of ASCII"
            )));
        }
    }
    Ok(SourceImage { width: info.width, height: info.height, format: info.format, mode: info.mode })
}

fn misbehaved(detail: String) -> SandboxError {
    SandboxError::Component { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_of_bounded_length() {
        assert_eq!(text("no end\nERROR forged"), "no end ERROR forged");
        let long = text(&"ä".repeat(1 << 20));
        assert_eq!(long, "ä".repeat(200) + "…");
        let limits = Limits::default();
        for make in [wit::Error::UnsupportedFormat, wit::Error::Truncated, wit::Error::Corrupt] {
            assert!(error(make("x".repeat(1 << 20)), &limits).to_string().len() < 400);
        }
    }

    #[test]
    fn a_format_is_a_word() {
        let info = |format: &str, mode: &str| wit::ImageInfo {
            width: 1,
            height: 1,
            format: format.to_owned(),
            mode: mode.to_owned(),
        };
        assert!(source(info("JPEG", "I;16")).is_ok() && source(info("", "")).is_ok());
        for (format, mode) in
            [("JPEG\r\n", "L"), ("PNG", &"L".repeat(33)), ("ä", "L"), (&"P".repeat(1 << 20), "")]
        {
            assert!(matches!(source(info(format, mode)), Err(SandboxError::Component { .. })));
        }
    }

    #[test]
    fn features_are_what_bytes_can_have() {
        let of = |mean, std, min, max| features(wit::Features { mean, std, min, max });
        assert!(
            of(0.0, 0.0, 0, 0).is_ok()
                && of(255.0, 0.0, 255, 255).is_ok()
                && of(127.5, 127.5, 0, 255).is_ok()
        );
        for (mean, std, min, max) in [
            (f64::NAN, 1.0, 0, 9),
            (1.0, f64::INFINITY, 0, 9),
            (-1.0, 1.0, 0, 9),
            (256.0, 1.0, 0, 9),
            (1.0, 128.0, 0, 9),
            (5.0, 1.0, 9, 8),
        ] {
            assert!(of(mean, std, min, max).is_err(), "{mean} {std} {min} {max}");
        }
    }
}
