//! Between the WIT interface and the pure code.

// The bindings are generated, and reading arguments out of linear memory takes raw pointers.
#[allow(unsafe_code, missing_docs)]
mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "preprocessor" });
    use super::Component;
    export!(Component);
}

use std::cell::RefCell;

use bindings::exports::convoy::preprocess::images as wit;

use crate::{error, features, preprocess, resize};

struct Component;

thread_local! {
    /// The image of this instance, with the most pixels it may have, once it was probed.
    static IMAGE: RefCell<Option<(Vec<u8>, u64)>> = const { RefCell::new(None) };
}

/// Gives the probed image to `work`.
fn with_image<R>(work: impl FnOnce(&[u8], u64) -> Result<R, error::Error>) -> Result<R, wit::Error> {
    IMAGE.with_borrow(|image| match image {
        Some((bytes, max_pixels)) => Ok(work(bytes, *max_pixels)?),
        None => Err(wit::Error::InvalidOptions("no image was probed".to_owned())),
    })
}

impl wit::Guest for Component {
    fn probe(image: Vec<u8>, max_pixels: u64) -> Result<wit::ImageInfo, wit::Error> {
        let info = preprocess::probe(&image, max_pixels)?;
        IMAGE.set(Some((image, max_pixels)));
        Ok(info.into())
    }

    fn tensor(options: wit::Options) -> Result<wit::ImageTensor, wit::Error> {
        let tensor = with_image(|image, max_pixels| preprocess::tensor(image, &options.into(), max_pixels))?;
        Ok(wit::ImageTensor {
            pixels: tensor.image.pixels,
            placement: tensor.placement.into(),
            features: tensor.features.into(),
        })
    }

    fn preprocess(options: wit::Options) -> Result<wit::Preprocessed, wit::Error> {
        let (jpeg, features) =
            with_image(|image, max_pixels| preprocess::preprocess(image, &options.into(), max_pixels))?;
        Ok(wit::Preprocessed { jpeg, features: features.into() })
    }
}

impl From<wit::Options> for resize::Options {
    fn from(options: wit::Options) -> Self {
        Self {
            width: options.width,
            height: options.height,
            fit: match options.fit {
                wit::Fit::Stretch => resize::Fit::Stretch,
                wit::Fit::Letterbox => resize::Fit::Letterbox,
                wit::Fit::Crop => resize::Fit::Crop,
            },
            filter: match options.filter {
                wit::Filter::Nearest => resize::Filter::Nearest,
                wit::Filter::Bilinear => resize::Filter::Bilinear,
                wit::Filter::Bicubic => resize::Filter::Bicubic,
                wit::Filter::Lanczos3 => resize::Filter::Lanczos3,
            },
            color: match options.color {
                wit::Color::Rgb => resize::Color::Rgb,
                wit::Color::Bgr => resize::Color::Bgr,
                wit::Color::Gray => resize::Color::Gray,
            },
            decode: match options.decode {
                wit::Decode::Auto => resize::Decode::Auto,
                wit::Decode::Full => resize::Decode::Full,
            },
        }
    }
}

impl From<resize::Placement> for wit::Placement {
    fn from(placement: resize::Placement) -> Self {
        Self {
            x_min: placement.x_min,
            y_min: placement.y_min,
            x_max: placement.x_max,
            y_max: placement.y_max,
        }
    }
}

impl From<features::Features> for wit::Features {
    fn from(features: features::Features) -> Self {
        Self { mean: features.mean, std: features.std, min: features.min, max: features.max }
    }
}

impl From<preprocess::ImageInfo> for wit::ImageInfo {
    fn from(info: preprocess::ImageInfo) -> Self {
        Self {
            width: info.width,
            height: info.height,
            format: info.format.to_owned(),
            mode: info.mode.to_owned(),
        }
    }
}

impl From<error::Error> for wit::Error {
    fn from(error: error::Error) -> Self {
        match error {
            error::Error::NotAnImage => Self::NotAnImage,
            error::Error::UnsupportedFormat(detail) => Self::UnsupportedFormat(detail),
            error::Error::Truncated(detail) => Self::Truncated(detail),
            error::Error::Corrupt(detail) => Self::Corrupt(detail),
            error::Error::TooManyPixels { width, height } => {
                Self::TooManyPixels(wit::Dimensions { width, height })
            }
            error::Error::OutOfMemory => Self::OutOfMemory,
            error::Error::InvalidOptions(detail) => Self::InvalidOptions(detail),
        }
    }
}
