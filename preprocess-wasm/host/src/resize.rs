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
    /// What the bytes of a pixel are.
    pub color: Color,
    /// How much of the image is decoded.
    pub decode: Decode,
}

impl Resize {
    /// Bytes of the pixels it gives.
    pub fn pixel_bytes(&self) -> usize {
        self.width as usize * self.height as usize * self.color.channels()
    }
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

/// What the bytes of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One byte of luma, (299 R + 587 G + 114 B) / 1000: Pillow's `L`.
    Gray,
}

/// How much of an image is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Decode {
    /// As much as the target can show: a large JPEG may be decoded at a half, a quarter or an eighth of its size, though
    /// never at less than twice the target in each direction.
    #[default]
    Auto,
    /// Every pixel.
    Full,
}

/// A word that names no [`Fit`], [`Filter`], [`Color`] or [`Decode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is no {option}: use one of {expected}.")]
pub struct ParseOptionError {
    option: &'static str,
    value: String,
    expected: &'static str,
}

/// Gives an option its words: `as_str`, `Display` and `FromStr`.
macro_rules! words {
    ($option:ident, $name:literal, $($variant:ident = $word:literal),+; $expected:literal) => {
        impl $option {
            /// The word for it in configurations.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $option {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $option {
            type Err = ParseOptionError;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                match value {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ParseOptionError {
                        option: $name,
                        value: value.to_owned(),
                        expected: $expected,
                    }),
                }
            }
        }
    };
}

words!(Fit, "fit", Stretch = "stretch", Letterbox = "letterbox", Crop = "crop"; "stretch, letterbox, crop");
words!(Filter, "filter", Nearest = "nearest", Bilinear = "bilinear", Bicubic = "bicubic", Lanczos3 = "lanczos3";
    "nearest, bilinear, bicubic, lanczos3");
words!(Color, "color", Rgb = "rgb", Bgr = "bgr", Gray = "gray"; "rgb, bgr, gray");
words!(Decode, "decode", Auto = "auto", Full = "full"; "auto, full");

impl Color {
    /// Bytes of a pixel.
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
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
        for color in [Color::Rgb, Color::Bgr, Color::Gray] {
            assert_eq!(color.to_string().parse::<Color>().unwrap(), color);
        }
        for decode in [Decode::Auto, Decode::Full] {
            assert_eq!(decode.to_string().parse::<Decode>().unwrap(), decode);
        }
    }

    #[test]
    fn another_word_is_refused_with_the_words_there_are() {
        let error = "cover".parse::<Fit>().unwrap_err();
        assert_eq!(error.to_string(), "`cover` is no fit: use one of stretch, letterbox, crop.");
        assert!("Bicubic".parse::<Filter>().is_err());
    }
}
