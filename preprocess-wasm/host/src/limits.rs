//! How a sandbox is built and what one image may use.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::Resize;

/// How a [`Sandbox`](crate::Sandbox) is built. [`Default`] gives the documented defaults.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// A component of the world `convoy:preprocess/preprocessor` to use instead of the embedded one.
    pub component: Option<PathBuf>,
    /// What one image may use.
    pub limits: Limits,
    /// Threads that run the guest: how many images are preprocessed at once. As many more, of a lower priority, work on
    /// large ones; and as many again at once on those that may take long, which take turns and together hold no more memory
    /// than so many may. Default: the processor's cores.
    pub workers: usize,
    /// Images that may wait for a thread; one more is answered [`Busy`](crate::SandboxError::Busy). There is a
    /// queue of this length for each of those. Default: 64.
    pub queue: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            component: None,
            limits: Limits::default(),
            workers: available_parallelism().map_or(1, usize::from),
            queue: 64,
        }
    }
}

/// What one image may use, whatever it declares.
///
/// An image's header is read first, within [`Limits::PROBE_TIME`] and [`Limits::probe_memory`]; what it declares decides
/// how much memory the rest may take, up to [`Limits::memory_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one guest instance in bytes, at most. Default: 512 MiB.
    pub memory_bytes: usize,
    /// Width times height that the image's header may declare. Default: 50 megapixels.
    pub max_pixels: u64,
    /// Time that one image may run, by the clock, besides [`Limits::PROBE_TIME`], and that it may wait for a thread. Default:
    /// 5 s.
    pub timeout: Duration,
    /// Size of the encoded image in bytes. Default: 32 MiB.
    pub max_image_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            max_pixels: 50_000_000,
            timeout: Duration::from_secs(5),
            max_image_bytes: 32 << 20,
        }
    }
}

/// What a guest has of its own: code's data, stack, tables and buffers of a decoder, whatever the image.
const BASE_BYTES: u64 = 16 << 20;
/// The most that a decoder holds of one pixel at once: twice 16 bytes of the widest samples (four floats, as read and as
/// handed out), 3 of RGB, and 3 when it is turned upright; rounded up. A progressive CMYK JPEG comes next, with 19.
const BYTES_PER_PIXEL: u64 = 40;
/// The encoded image itself, and a copy that a decoder may make of its parts.
const ENCODED_COPIES: u64 = 2;

impl Limits {
    /// Processor time that the guest may take to read an image's header. What it takes to copy the image into the guest does
    /// not count: it is the host's work, and the bytes bound it.
    pub const PROBE_TIME: Duration = Duration::from_millis(50);

    /// Time by the clock that an image may run, on all threads that take it up one after the other, its header included.
    pub fn run_time(&self) -> Duration {
        self.timeout.saturating_add(Self::PROBE_TIME)
    }

    /// Time by the clock in which an image is answered, whatever its caller's deadline: it may run for
    /// [`Limits::run_time`] and wait for threads as long as [`Limits::timeout`]. What has waited longer is answered
    /// [`Busy`](crate::SandboxError::Busy).
    pub fn answer_time(&self) -> Duration {
        self.run_time().saturating_add(self.timeout)
    }

    /// Memory in bytes that a guest may have while it reads the header of an image of `image_bytes`: these and 16 MiB.
    pub fn probe_memory(&self, image_bytes: usize) -> usize {
        self.at_most(BASE_BYTES + image_bytes as u64)
    }

    /// Memory in bytes that a guest may have for an image of `image_bytes` whose header declares `width` times `height`
    /// pixels, and which is to become what `resize` says.
    ///
    /// Resampling is done in two passes; between them the image has one of its sides already.
    pub fn decode_memory(&self, image_bytes: usize, (width, height): (u32, u32), resize: &Resize) -> usize {
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let between = area(resize.width, height).max(area(width, resize.height));
        let rgb = between.saturating_add(4 * area(resize.width, resize.height)).saturating_mul(3);
        let pixels = area(width, height).saturating_mul(BYTES_PER_PIXEL);
        let encoded = ENCODED_COPIES * image_bytes as u64;
        self.at_most(BASE_BYTES.saturating_add(encoded).saturating_add(pixels).saturating_add(rgb))
    }

    fn at_most(&self, bytes: u64) -> usize {
        usize::try_from(bytes).unwrap_or(usize::MAX).min(self.memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Color, Decode, Filter, Fit};

    const TO_300: Resize = Resize {
        width: 300,
        height: 300,
        fit: Fit::Stretch,
        filter: Filter::Bicubic,
        color: Color::Rgb,
        decode: Decode::Auto,
    };

    #[test]
    fn a_header_gets_little_memory_and_pixels_get_what_they_need() {
        let limits = Limits::default();
        assert_eq!(limits.probe_memory(85_000), 85_000 + (16 << 20));
        // 3 megapixels: 16 MiB, twice the file, 40 bytes a pixel, 300x2000 RGB between the passes, and the result.
        let expected = (16 << 20) + 2 * 1_000_000 + 40 * 3_000_000 + 3 * 300 * 2000 + 12 * 300 * 300;
        assert_eq!(limits.decode_memory(1_000_000, (1500, 2000), &TO_300), expected);
    }

    #[test]
    fn time_is_bounded_for_running_and_for_an_answer() {
        let limits = Limits::default();
        assert_eq!(limits.run_time(), Duration::from_millis(5_050));
        assert_eq!(limits.answer_time(), Duration::from_millis(10_050));
        let endless = Limits { timeout: Duration::MAX, ..limits };
        assert_eq!(endless.answer_time(), Duration::MAX);
    }

    #[test]
    fn nothing_exceeds_the_hard_maximum() {
        let limits = Limits { memory_bytes: 10 << 20, ..Limits::default() };
        assert_eq!(limits.probe_memory(0), 10 << 20);
        assert_eq!(limits.probe_memory(usize::MAX / 2), 10 << 20);
        assert_eq!(limits.decode_memory(usize::MAX / 2, (u32::MAX, u32::MAX), &TO_300), 10 << 20);
    }
}
