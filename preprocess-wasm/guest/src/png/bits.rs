//! The bits of deflated data (RFC 1951, 3.1.1).

use super::Data;

/// Bits of the data, lowest first. At the end it hands out zeros and remembers how many.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: Data<'a>,
    /// Where the piece of data goes on.
    at: usize,
    /// The next bits, the first one lowest. Those above `filled` may be set already, as they will be.
    buffer: u64,
    filled: u32,
    /// How many of the filled ones, the last ones, are not of the data.
    invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: Data<'a>) -> Self {
        Self { data, at: 0, buffer: 0, filled: 0, invented: 0 }
    }

    /// The next bits, 56 after a refill.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Makes sure of 56 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if let Some(bytes) = self.data.current.get(self.at..).and_then(<[u8]>::first_chunk) {
            self.buffer |= u64::from_le_bytes(*bytes) << (self.filled & 63);
            self.at += (63 - self.filled as usize) / 8;
            self.filled |= 56;
        } else {
            *self = self.refilled_by_bytes();
        }
    }

    /// By value: what a call could change through a reference would have to lie in memory all the time.
    #[cold]
    #[inline(never)]
    fn refilled_by_bytes(mut self) -> Self {
        while self.filled < 56 {
            // What was set already lies in the piece that ends.
            self.buffer &= (1 << self.filled) - 1;
            let byte = loop {
                if let Some(&byte) = self.data.current.get(self.at) {
                    self.at += 1;
                    break Some(byte);
                }
                self.at = 0;
                if self.data.next().is_none() {
                    break None;
                }
            };
            if byte.is_none() {
                self.invented += 8;
            }
            self.buffer |= u64::from(byte.unwrap_or(0)) << self.filled;
            self.filled += 8;
        }
        self
    }

    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) {
        self.buffer >>= count & 63;
        self.filled = self.filled.wrapping_sub(count);
    }

    /// The extra bits of an entry.
    #[inline(always)]
    pub(super) fn extra(&mut self, entry: u32) -> usize {
        let count = entry >> 8 & 0x1f;
        let extra = self.buffer as u32 & ((1 << count) - 1);
        self.consume(count);
        extra as usize
    }

    /// The next `count` bits, 16 at most.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.refill();
        let bits = self.buffer as u32 & ((1 << count) - 1);
        self.consume(count);
        bits
    }

    /// Goes to the next whole byte.
    pub(super) fn align(&mut self) {
        self.consume(self.filled % 8);
    }

    /// Whether more bits were taken than the data have.
    pub(super) fn is_overrun(&self) -> bool {
        self.filled < self.invented
    }

    /// The chunks behind the data, if those end exactly here and no piece of them is damaged.
    pub(super) fn behind(&self) -> Option<&'a [u8]> {
        // Bits are invented only when no piece is left.
        let ends_here = self.invented > 0 && self.filled == self.invented;
        ends_here.then_some(self.data.chunks)
    }

    /// Copies whole bytes to `out`, and says how many, at least one. `None` if there are no more.
    pub(super) fn copy(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.filled >= 8 {
            let count = out.len().min(self.filled as usize / 8);
            for byte in &mut out[..count] {
                *byte = self.buffer as u8;
                self.consume(8);
            }
            return (!self.is_overrun()).then_some(count);
        }
        self.buffer = 0;
        while self.at >= self.data.current.len() {
            self.at = 0;
            self.data.next()?;
        }
        let rest = &self.data.current[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Some(count)
    }
}
