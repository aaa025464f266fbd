//! Why an image has no result.

/// What is wrong with an image or with the options. The same cases as the WIT interface's `error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes begin like no image format.
    #[error("not an image")]
    NotAnImage,
    /// An image, but of a format or a feature of it that is not decoded here.
    #[error("unsupported format: {0}")]
    UnsupportedFormat(String),
    /// The data end before the image does.
    #[error("truncated: {0}")]
    Truncated(String),
    /// The data contradict their own format.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The header declares more pixels than allowed.
    #[error("too many pixels: {width}x{height}")]
    TooManyPixels {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
    },
    /// Decoding wants more memory than an address space has.
    #[error("out of memory")]
    OutOfMemory,
    /// A size, fit or filter that cannot be had.
    #[error("invalid options: {0}")]
    InvalidOptions(String),
}
