//! Which images wait for which.
//!
//! Most images take milliseconds; a few take seconds, and whoever wants to harm sends only such. In one queue the few would
//! make the many wait. So there are three lanes with threads of their own. Every image begins in the quick one. One whose header
//! says that it is larger begins again in that for large ones. One that turns out to be longer work than its header says, by the
//! time it has taken or the memory that it wants, begins again in the slow one, and so does one whose header declares very many pixels.
//! There they take turns. What the threads of the other lanes do, those of the quick one and of the model go before.

use std::time::Duration;

use crate::watch::{Interrupted, Slice};
use crate::{Decode, Resize};

/// A queue and its threads. An image only ever goes on to a later one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Photos, and whatever is small.
    Quick,
    /// Large photos, and what a camera or a screen gives without loss.
    Large,
    /// Whatever may take long.
    Slow,
}

impl Lane {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Quick, Self::Large, Self::Slow];
    /// The most pixels that the header of a JPEG declares in the quick lane and in that for large ones, if it is decoded at a
    /// fraction of its size: in up to 4 ns for each of them (`docs/benchmarks.md`). 25 megapixels are what phones write, if
    /// nobody asks them for more.
    const SCALED_JPEG_PIXELS: (u64, u64) = (4_000_000, 25_000_000);
    /// The same if it must be decoded whole.
    const WHOLE_JPEG_PIXELS: (u64, u64) = (2_000_000, 12_000_000);
    /// The same of other formats. A PNG takes 10 ns for each.
    const PIXELS: (u64, u64) = (1_000_000, 4_000_000);
    /// A JPEG's format, as a component names it.
    const JPEG: &str = "JPEG";
    /// Processor time after which an image is out of the quick lane. What it has taken by then is lost.
    const QUICK_TIME: Duration = Duration::from_millis(20);
    /// The same of the lane for large images. A photo of 12 megapixels with much noise takes half of it.
    const LARGE_TIME: Duration = Duration::from_millis(100);
    /// How many images may have begun in the slow lane without having a place there now: each has a thread and an instance.
    /// Images may take turns with so many bombs; those that come when there are more wait until one of them is done.
    const WAITING: usize = 14;
    /// Memory in bytes of which more is for the slow lane. An image of 4 megapixels may have 232 MiB (40 bytes a
    /// pixel, an encoded image of 32 MiB twice, and 16 MiB); a JPEG that is decoded whole may declare what needs more.
    const MEMORY: usize = 256 << 20;

    /// Where an image of this format and size belongs that is to become such, by its header.
    pub(crate) fn of(format: &str, (width, height): (u32, u32), to: &Resize) -> Self {
        let pixels = u64::from(width) * u64::from(height);
        // A half of its size is still twice the target.
        let scaled = to.decode == Decode::Auto && width / 4 >= to.width && height / 4 >= to.height;
        let (quick, large) = match (format == Self::JPEG, scaled) {
            (true, true) => Self::SCALED_JPEG_PIXELS,
            (true, false) => Self::WHOLE_JPEG_PIXELS,
            (false, _) => Self::PIXELS,
        };
        if pixels <= quick {
            Self::Quick
        } else if pixels <= large {
            Self::Large
        } else {
            Self::Slow
        }
    }

    /// Its threads, if so many images are to work at once.
    pub(crate) fn threads(self, workers: usize) -> usize {
        match self {
            Self::Quick | Self::Large => workers,
            Self::Slow => Self::places(workers) + Self::WAITING,
        }
    }

    /// Images at work at once in the slow lane. With one, none could be left alone until it is done.
    pub(crate) fn places(workers: usize) -> usize {
        workers.max(2)
    }

    /// How much its threads stand back behind others, as `nice` counts it: of a core for which another competes a thread gets a
    /// third at 3, and a quarter at 5.
    pub(crate) const fn niceness(self) -> i32 {
        match self {
            Self::Quick => 0,
            Self::Large => 3,
            Self::Slow => 5,
        }
    }

    /// The name of its threads. Linux keeps 15 characters, a hyphen and the thread's number among them.
    pub(crate) const fn thread_name(self) -> &'static str {
        match self {
            Self::Quick => "image-quick",
            Self::Large => "image-large",
            Self::Slow => "image-slow",
        }
    }

    /// The memory in bytes that an instance may take in it, if that is bounded besides what the image may have.
    pub(crate) fn memory(self) -> Option<usize> {
        match self {
            Self::Quick | Self::Large => Some(Self::MEMORY),
            Self::Slow => None,
        }
    }

    /// The processor time that an image may take in it, from now on.
    pub(crate) fn slice(self) -> Option<Slice> {
        let length = match self {
            Self::Quick => Self::QUICK_TIME,
            Self::Large => Self::LARGE_TIME,
            Self::Slow => return None,
        };
        Some(Slice::of(length, Interrupted::Slow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Color, Filter, Fit, Limits};

    const FORMATS: [&str; 6] = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"];

    fn to(side: u32, decode: Decode) -> Resize {
        Resize {
            width: side,
            height: side,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            color: Color::Rgb,
            decode,
        }
    }

    fn of(format: &str, size: (u32, u32)) -> Lane {
        Lane::of(format, size, &to(300, Decode::Auto))
    }

    #[test]
    fn an_image_of_few_pixels_is_work_for_the_quick_lane() {
        for format in FORMATS {
            for size in [(1, 1), (1_000, 1_000), (1, 1_000_000)] {
                assert_eq!(of(format, size), Lane::Quick, "{format} {size:?}");
            }
        }
        assert_eq!(of("JPEG", (2_000, 2_000)), Lane::Quick);
    }

    #[test]
    fn one_of_more_is_for_that_of_large_ones_and_one_of_many_for_the_slow_one() {
        for format in FORMATS {
            let jpeg = format == "JPEG";
            for size in [(1_000, 1_001), (2_000, 2_000)] {
                let lane = if jpeg { Lane::Quick } else { Lane::Large };
                assert_eq!(of(format, size), lane, "{format} {size:?}");
            }
            for (size, of_jpeg) in [
                ((2_000, 2_001), Lane::Large),
                ((5_000, 5_000), Lane::Large),
                ((5_000, 5_001), Lane::Slow),
                ((u32::MAX, u32::MAX), Lane::Slow),
            ] {
                let lane = if jpeg { of_jpeg } else { Lane::Slow };
                assert_eq!(of(format, size), lane, "{format} {size:?}");
            }
        }
        assert_eq!(of("", (2_000, 2_001)), Lane::Slow, "a component that names no format");
    }

    #[test]
    fn a_jpeg_that_must_be_decoded_whole_is_more_work() {
        let full = to(300, Decode::Full);
        // It would have to be four times as wide and as high.
        let many = to(501, Decode::Auto);
        for whole in [full, many] {
            assert_eq!(Lane::of("JPEG", (2_000, 1_000), &whole), Lane::Quick);
            assert_eq!(Lane::of("JPEG", (2_000, 1_001), &whole), Lane::Large);
            assert_eq!(Lane::of("PNG", (1_000, 1_000), &whole), Lane::Quick);
        }
        assert_eq!(Lane::of("JPEG", (2_000, 2_000), &many), Lane::Large);
        assert_eq!(Lane::of("JPEG", (2_004, 1_990), &to(497, Decode::Auto)), Lane::Quick);
        assert_eq!(Lane::of("JPEG", (4_000, 3_000), &full), Lane::Large);
        assert_eq!(Lane::of("JPEG", (4_000, 3_001), &full), Lane::Slow);
    }

    #[test]
    fn only_the_slow_lane_sets_no_bounds_of_its_own() {
        for lane in [Lane::Quick, Lane::Large] {
            assert!(lane.slice().is_some() && lane.memory().is_some(), "{lane:?}");
        }
        assert!(Lane::Slow.slice().is_none() && Lane::Slow.memory().is_none());
    }

    #[test]
    fn a_lanes_threads_are_told_apart_by_what_linux_keeps_of_their_names() {
        for lane in Lane::ALL {
            assert!(format!("{}-99", lane.thread_name()).len() <= 15, "{lane:?}");
        }
    }

    #[test]
    fn what_is_sent_to_a_lane_by_its_pixels_has_the_memory_it_needs_there() {
        let (limits, resize) = (Limits::default(), to(640, Decode::Auto));
        let needs = |size| limits.decode_memory(limits.max_image_bytes, size, &resize);
        for lane in [Lane::Quick, Lane::Large] {
            let memory = lane.memory().unwrap_or_default();
            assert!(needs((2_000, 2_000)) <= memory);
            assert!(
                needs((8_000, 6_000)) > memory,
                "a JPEG may declare so many, and may not take as much there"
            );
        }
    }
}
