//! What an image is to become.

use std::fmt;
use std::str::FromStr;

/// Target size, and how the image is brought to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resize {
    /// Target width in pixels, 1..=4096.
    pub width: u32,
    /// Target height in pixels, 1..=4096.
    pub height: u32,
    /// What happens when the aspect ratios differ.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: Filter,
}

/// What happens when the image's aspect ratio is not the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// Width and height are scaled independently.
    #[default]
    Stretch,
    /// The whole image, centred, with grey (114, 114, 114) bars beside it.
    Letterbox,
    /// The largest centred part of the target's aspect ratio.
    Crop,
}

/// Resampling filter. All but [`Filter::Nearest`] are antialiased when they shrink, as Pillow's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Cubic convolution with a = -0.5 (Catmull-Rom), Pillow's `BICUBIC`.
    #[default]
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos3,
}

/// A word that names no [`Fit`] or [`Filter`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is no {option}: use one of {expected}.")]
pub struct ParseOptionError {
    option: &'static str,
    value: String,
    expected: &'static str,
}

impl Fit {
    /// The word for it in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Letterbox => "letterbox",
            Self::Crop => "crop",
        }
    }
}

impl Filter {
    /// The word for it in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos3 => "lanczos3",
        }
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Fit {
    type Err = ParseOptionError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        [Self::Stretch, Self::Letterbox, Self::Crop].into_iter().find(|fit| fit.as_str() == value).ok_or_else(
            || ParseOptionError {
                option: "fit",
                value: value.to_owned(),
                expected: "stretch, letterbox, crop",
            },
        )
    }
}

impl FromStr for Filter {
    type Err = ParseOptionError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        [Self::Nearest, Self::Bilinear, Self::Bicubic, Self::Lanczos3]
            .into_iter()
            .find(|filter| filter.as_str() == value)
            .ok_or_else(|| ParseOptionError {
                option: "filter",
                value: value.to_owned(),
                expected: "nearest, bilinear, bicubic, lanczos3",
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_word_comes_back_as_what_it_names() {
        for fit in [Fit::Stretch, Fit::Letterbox, Fit::Crop] {
            assert_eq!(fit.to_string().parse::<Fit>().unwrap(), fit);
        }
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
            assert_eq!(filter.to_string().parse::<Filter>().unwrap(), filter);
        }
    }

    #[test]
    fn another_word_is_refused_with_the_words_there_are() {
        let error = "cover".parse::<Fit>().unwrap_err();
        assert_eq!(error.to_string(), "`cover` is no fit: use one of stretch, letterbox, crop.");
        assert!("Bicubic".parse::<Filter>().is_err());
    }
}
