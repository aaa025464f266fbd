//! Which images wait for which.
//!
//! Most images take milliseconds; a few take seconds, and whoever wants to harm sends only such. In one queue the few would
//! make the many wait. So there are two lanes with threads of their own: every image begins in the quick one, and one that
//! turns out to be long work, by what its header declares or by the time or memory it has taken, begins again in the slow
//! one, whose threads have a lower priority.

use std::time::Duration;

use crate::budget::{Interrupted, Slice};

/// A queue and its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Quick,
    Slow,
}

impl Lane {
    /// How many there are.
    pub(crate) const COUNT: u32 = 2;
    /// The most pixels that the header of an image in the quick lane declares, unless it is a [`Self::SCALED`] one.
    const QUICK_PIXELS: u64 = 4_000_000;
    /// The format, as a component names it, of which work does not follow from pixels: a baseline JPEG is decoded at a
    /// fraction of its size, and one of 12 megapixels takes about as long as a PNG of two. A photo must not wait for bombs.
    const SCALED: &str = "JPEG";
    /// Processor time after which an image is out of the quick lane. What it has taken by then is lost.
    const QUICK_TIME: Duration = Duration::from_millis(100);
    /// Memory in bytes of which more is for the slow lane. An image of [`Self::QUICK_PIXELS`] may have 232 MiB (40 bytes a
    /// pixel, an encoded image of 32 MiB twice, and 16 MiB); a JPEG that is decoded whole may declare what needs more.
    const QUICK_MEMORY: usize = 256 << 20;

    /// How much its threads stand back behind others, as `nice` counts it: at 5 a thread gets a quarter of a core for
    /// which another competes.
    pub(crate) const fn niceness(self) -> i32 {
        match self {
            Self::Quick => 0,
            Self::Slow => 5,
        }
    }

    /// The name of its threads.
    pub(crate) const fn thread_name(self) -> &'static str {
        match self {
            Self::Quick => "sandbox",
            Self::Slow => "sandbox-slow",
        }
    }

    /// Whether an image of this format and size is no work for it.
    pub(crate) fn is_beyond(self, format: &str, (width, height): (u32, u32)) -> bool {
        let many = u64::from(width) * u64::from(height) > Self::QUICK_PIXELS;
        self == Self::Quick && many && format != Self::SCALED
    }

    /// The memory in bytes that an instance may take in it, if that is bounded besides what the image may have.
    pub(crate) fn memory(self) -> Option<usize> {
        match self {
            Self::Quick => Some(Self::QUICK_MEMORY),
            Self::Slow => None,
        }
    }

    /// The processor time that an image may take in it, from now on.
    pub(crate) fn slice(self) -> Option<Slice> {
        match self {
            Self::Quick => Some(Slice::of(Self::QUICK_TIME, Interrupted::Slow)),
            Self::Slow => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Color, Decode, Filter, Fit, Limits, Resize};

    const FORMATS: [&str; 6] = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"];

    #[test]
    fn every_image_of_few_pixels_is_work_for_the_quick_lane() {
        for format in FORMATS {
            for size in [(1, 1), (2_000, 2_000), (1, 4_000_000)] {
                assert!(!Lane::Quick.is_beyond(format, size), "{format} {size:?}");
            }
        }
    }

    #[test]
    fn of_many_pixels_only_a_jpeg_is() {
        for size in [(2_000, 2_001), (4_000, 3_000), (u32::MAX, u32::MAX)] {
            for format in FORMATS {
                assert_eq!(Lane::Quick.is_beyond(format, size), format != "JPEG", "{format} {size:?}");
            }
            assert!(Lane::Quick.is_beyond("", size), "a component that names no format");
        }
    }

    #[test]
    fn nothing_is_beyond_the_slow_lane() {
        for format in FORMATS {
            assert!(!Lane::Slow.is_beyond(format, (u32::MAX, u32::MAX)), "{format}");
        }
        assert_eq!(Lane::Slow.memory(), None);
        assert!(Lane::Slow.slice().is_none() && Lane::Quick.slice().is_some());
    }

    #[test]
    fn what_is_sent_to_the_quick_lane_by_its_pixels_has_the_memory_it_needs_there() {
        let limits = Limits::default();
        let resize = Resize {
            width: 640,
            height: 640,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            color: Color::Rgb,
            decode: Decode::Auto,
        };
        let needs = |size| limits.decode_memory(limits.max_image_bytes, size, &resize);
        let quick = Lane::Quick.memory().unwrap_or_default();
        assert!(needs((2_000, 2_000)) <= quick);
        assert!(needs((8_000, 6_000)) > quick, "a JPEG may declare so many, and may not take as much there");
    }
}
