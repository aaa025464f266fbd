//! Which images wait for which.
//!
//! Most images take milliseconds; a few take seconds, and whoever wants to harm sends only such. In one queue the few would
//! make the many wait. So there are two lanes with threads of their own: every image begins in the quick one, and one that
//! turns out to be long work, by what its header declares or by the time it has taken, begins again in the slow one, whose
//! threads have a lower priority.

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
    /// The most pixels that the header of an image in the quick lane declares. A JPEG of so many takes about as long as
    /// the image of any other kind of a quarter as many.
    const QUICK_PIXELS: u64 = 4_000_000;
    /// Processor time after which an image is out of the quick lane. What it has taken by then is lost.
    const QUICK_TIME: Duration = Duration::from_millis(100);

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

    /// Whether an image of this size is no work for it.
    pub(crate) fn is_beyond(self, (width, height): (u32, u32)) -> bool {
        self == Self::Quick && u64::from(width) * u64::from(height) > Self::QUICK_PIXELS
    }

    /// The processor time that an image may take in it, from now on.
    pub(crate) fn slice(self) -> Option<Slice> {
        match self {
            Self::Quick => Some(Slice::of(Self::QUICK_TIME, Interrupted::Slow)),
            Self::Slow => None,
        }
    }
}
