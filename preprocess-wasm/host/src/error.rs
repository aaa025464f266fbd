//! Why an image was not preprocessed, and whose fault it is.

use std::time::Duration;

/// What went wrong in the sandbox. Every message is a whole sentence for whoever sent the image or runs the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The sender's: there was nothing to decode.
    #[error("The image is empty: send the bytes of an encoded image.")]
    Empty,
    /// The sender's: the bytes do not begin like any image format.
    #[error("The data is not an image: it begins like no known image format.")]
    NotAnImage,
    /// The sender's: an image, but of a format or a feature of it that is not decoded here.
    #[error("The image format is not supported ({format}): send JPEG, PNG, WebP, GIF, BMP or TIFF.")]
    UnsupportedFormat {
        /// The format or the feature, in the field's words.
        format: String,
    },
    /// The sender's: the data end before the image does, most often after an interrupted upload.
    #[error("The image is truncated ({detail}): send the whole file.")]
    Truncated {
        /// What the decoder missed.
        detail: String,
    },
    /// The sender's: the data contradict their own format.
    #[error("The image is corrupt: {detail}.")]
    Corrupt {
        /// What the decoder found, without a full stop at its end.
        detail: String,
    },
    /// The sender's: the header declares more pixels than [`Limits::max_pixels`](crate::Limits::max_pixels).
    #[error(
        "The image has {width}x{height} pixels, more than the limit of {limit} pixels: send a smaller one."
    )]
    TooManyPixels {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// The limit on width times height.
        limit: u64,
    },
    /// The sender's: more encoded bytes than [`Limits::max_image_bytes`](crate::Limits::max_image_bytes).
    #[error("The image has {bytes} bytes, more than the limit of {limit} bytes: send a smaller one.")]
    TooLarge {
        /// Size of the encoded image in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The caller's: a size, fit or filter that cannot be had.
    #[error("The options of the resize are not valid: {detail}.")]
    InvalidOptions {
        /// Which option and why, without a full stop at its end.
        detail: String,
    },
    /// The sender's: decoding wanted more memory than an image that declares what this one declares may have. See
    /// [`Limits`](crate::Limits).
    #[error("The image needs more than the {limit_bytes} bytes of memory it may use: send a smaller one.")]
    OutOfMemory {
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// The sender's: decoding took longer than [`Limits::timeout`](crate::Limits::timeout), or reading the
    /// header more processor time than [`Limits::PROBE_TIME`](crate::Limits::PROBE_TIME).
    #[error("The image took longer than the {} ms it may take: send a smaller or simpler one.", limit.as_millis())]
    OutOfTime {
        /// The limit.
        limit: Duration,
    },
    /// Nobody's: the request's own deadline passed, in the queue or while the guest ran.
    #[error("The deadline of the request passed before its image was preprocessed: allow it more time.")]
    DeadlineExceeded,
    /// The sender's or the component's: the guest stopped itself (a panic, a stack overflow, a wild pointer).
    #[error("The image could not be decoded: it made the decoder fail ({detail}).")]
    Trapped {
        /// The trap, in wasmtime's words.
        detail: String,
        /// SHA-256 of the encoded image in lower-case hex, by which an operator finds it again: a log holds no images.
        image_sha256: String,
    },
    /// The server's: the queue is full, the image has waited in it and for its turn for longer than
    /// [`Limits::timeout`](crate::Limits::timeout), its memory was needed for others while it waited, or a
    /// [meter](crate::MemoryMeter) had no room. The same request may be sent again.
    #[error("Too many images are being preprocessed: try again in {} ms.", retry_after.as_millis())]
    Busy {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The server's: its sandbox has stopped.
    #[error("The image was not preprocessed because the server is stopping: try again later.")]
    Stopped,
    /// The operator's: the component (or the machine) does not fit, and no image can be preprocessed.
    #[error("The preprocessing component cannot be used: {detail}.")]
    Component {
        /// What does not fit, without a full stop at its end.
        detail: String,
    },
}
