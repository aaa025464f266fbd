//! Between the WIT interface and the pure code.

// The bindings are generated, and reading arguments out of linear memory takes raw pointers.
#[allow(unsafe_code, missing_docs)]
mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "preprocessor" });
    use super::Component;
    export!(Component);
}

use bindings::exports::convoy::preprocess::images as wit;

use crate::{error, preprocess, resize};

struct Component;

impl wit::Guest for Component {
    fn probe(image: Vec<u8>, max_pixels: u64) -> Result<wit::ImageInfo, wit::Error> {
        Ok(preprocess::probe(&image, max_pixels)?.into())
    }

    fn tensor(image: Vec<u8>, options: wit::Options) -> Result<wit::ImageTensor, wit::Error> {
        let (resized, placement, source) = preprocess::tensor(&image, &options.into(), options.max_pixels)?;
        Ok(wit::ImageTensor { pixels: resized.pixels, placement: placement.into(), source: source.into() })
    }

    fn preprocess(image: Vec<u8>, options: wit::Options) -> Result<wit::Preprocessed, wit::Error> {
        let (jpeg, features, source) = preprocess::preprocess(&image, &options.into(), options.max_pixels)?;
        let features =
            wit::Features { mean: features.mean, std: features.std, min: features.min, max: features.max };
        Ok(wit::Preprocessed { jpeg, features, source: source.into() })
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
