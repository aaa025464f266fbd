//! Resampling of planes, row by row as they come.
//!
//! Both passes are convolutions in whole numbers, so that the result is the same on every machine: weights have 14 bits
//! after the point, what lies between the passes 6. Rows are brought to the target's width as they come and kept in a
//! ring, until the last of those that a row of the target needs is there.

mod axis;
mod pass;

use crate::resize::Filter;
use axis::Axis;
use fearless_simd::{Level, dispatch};

pub(crate) use pass::LANES;

/// Samples that a ring may have: of three planes at once, less than the guest is allowed whatever the image.
const MAX_RING: usize = 1 << 20;

/// One plane on its way to its target size.
pub(crate) struct PlaneResampler {
    columns: Axis,
    rows: Axis,
    /// Rows of the target's width, of which the row `n` of the source lies at `n` modulo their number, a power of two.
    ring: Vec<i16>,
    ring_rows: usize,
    /// Bytes of a row of the target, and numbers of one in the ring.
    stride: usize,
    received: usize,
    finished: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// What part of a plane becomes how many samples, along one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    /// Samples of the plane.
    pub(crate) samples: usize,
    /// Where the part begins, in samples.
    pub(crate) from: f64,
    /// Its length in samples, more than zero.
    pub(crate) length: f64,
    /// Samples of the target.
    pub(crate) target: usize,
}

impl PlaneResampler {
    /// For a filter other than [`Filter::Nearest`]. `None` if a row of the target needs so many of the source that they
    /// cannot be kept: a tall image for a wide and low target. That is resampled as a whole.
    pub(crate) fn new(horizontal: Span, vertical: Span, filter: Filter) -> Option<Self> {
        let columns = Axis::new(horizontal, filter, pass::TAPS);
        let rows = Axis::new(vertical, filter, 1);
        let stride = horizontal.target.next_multiple_of(LANES);
        let ring_rows = rows.taps().next_power_of_two();
        if stride * ring_rows > MAX_RING {
            return None;
        }
        Some(Self {
            columns,
            rows,
            ring: vec![0; stride * ring_rows],
            ring_rows,
            stride,
            received: 0,
            finished: 0,
            height: vertical.target,
            pixels: vec![0; stride * vertical.target],
        })
    }

    /// Takes the next row: its samples, with at least [`LANES`] bytes behind them that mean nothing.
    pub(crate) fn push(&mut self, level: Level, row: &[u8]) {
        let number = self.received;
        self.received += 1;
        if self.finished == self.height || number < self.rows.start(self.finished) {
            return;
        }
        let at = (number & (self.ring_rows - 1)) * self.stride;
        let (columns, out) = (&self.columns, &mut self.ring[at..at + self.stride]);
        dispatch!(level, simd => pass::horizontal(simd, row, columns, out));
        while self.finished < self.height && self.rows.end(self.finished) <= self.received {
            let out = &mut self.pixels[self.finished * self.stride..][..self.stride];
            let rows = pass::Rows { ring: &self.ring, count: self.ring_rows, stride: self.stride };
            let window = self.rows.window(self.finished);
            dispatch!(level, simd => pass::vertical(simd, rows, window, out));
            self.finished += 1;
        }
    }

    /// The rows of the target, and how many bytes they are apart. `None` if rows are missing.
    pub(crate) fn finish(self) -> Option<(Vec<u8>, usize)> {
        (self.finished == self.height).then_some((self.pixels, self.stride))
    }
}

#[cfg(test)]
mod tests;
