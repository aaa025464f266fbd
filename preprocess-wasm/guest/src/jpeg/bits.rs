//! The bits of a JPEG's entropy-coded data (ITU T.81, annex F.2.2.5).

/// Reads bits, highest first, and takes the stuffed zero bytes out. At a marker or at the end it hands out zeros and
/// remembers how many.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, in the highest places. Those behind the filled ones may be set already, as they will be.
    buffer: u64,
    /// How many bits of the buffer are filled.
    filled: u32,
    /// How many of those, the last ones, are not of the data.
    invented: u32,
}

/// Bits that [`Bits::refill`] guarantees: the longest code and the longest number behind it.
const GUARANTEED: u32 = 32;

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, filled: 0, invented: 0 }
    }

    /// Makes sure that 32 bits can be peeked at and consumed.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.filled < GUARANTEED {
            if let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk) {
                let word = u64::from_be_bytes(*bytes);
                // No byte of it is 0xff (the test for a zero byte, of the complement).
                if (!word).wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0 {
                    self.buffer |= word >> self.filled;
                    self.at += (63 - self.filled as usize) / 8;
                    self.filled |= 56;
                    return;
                }
            }
            *self = self.refilled_by_bytes();
        }
    }

    /// By value: what a call could change through a reference would have to lie in memory all the time.
    #[cold]
    #[inline(never)]
    fn refilled_by_bytes(mut self) -> Self {
        self.buffer &= !(u64::MAX >> self.filled);
        while self.filled <= 48 {
            let byte = match self.data.get(self.at..).unwrap_or_default() {
                [0xff, 0x00, ..] => {
                    self.at += 2;
                    0xff
                }
                [0xff, ..] | [] => {
                    self.invented += 8;
                    0
                }
                [byte, ..] => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.filled);
            self.filled += 8;
        }
        self
    }

    /// The next `count` bits, 1..=32, after a refill.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    /// Goes on by `count` bits, 0..=32, no more than there are after a refill.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) {
        self.buffer <<= count;
        self.filled = self.filled.wrapping_sub(count);
    }

    /// A number of `size` bits, 1..=16, in JPEG's way: those that begin with 0 are negative.
    #[inline(always)]
    pub(super) fn number(&mut self, size: u32) -> i32 {
        let bits = self.peek(size) as i32;
        self.consume(size);
        extend(bits, size)
    }

    /// Whether more bits were taken than the data have.
    pub(super) fn is_overrun(&self) -> bool {
        self.filled < self.invented
    }

    /// Takes the marker that must come now, after the bits that fill up the last byte.
    pub(super) fn marker(&mut self) -> Option<u8> {
        let left = self.filled.checked_sub(self.invented)?;
        let rest = self.data.get(self.at..)?;
        let fill = rest.iter().position(|&byte| byte != 0xff)?;
        if left >= 8 || fill == 0 || rest[fill] == 0 {
            return None;
        }
        self.next_marker()
    }

    /// Goes to the next marker, behind it, and says which one it is.
    pub(super) fn next_marker(&mut self) -> Option<u8> {
        (self.buffer, self.filled, self.invented) = (0, 0, 0);
        loop {
            let rest = self.data.get(self.at..)?;
            self.at += rest.iter().position(|&byte| byte == 0xff)?;
            let rest = &self.data[self.at..];
            let fill = rest.iter().position(|&byte| byte != 0xff)?;
            self.at += fill + 1;
            match (fill, rest[fill]) {
                (1, 0) => {}
                // Fill bytes stand before markers alone.
                (_, 0) => return None,
                (_, marker) => return Some(marker),
            }
        }
    }
}

/// `bits` of `size` as a signed number (ITU T.81, figure F.12).
pub(super) const fn extend(bits: i32, size: u32) -> i32 {
    if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_zeros_are_left_out_and_the_end_is_noticed() {
        let mut bits = Bits::new(&[0x12, 0xff, 0x00, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xff, 0xd9]);
        let mut bytes = Vec::new();
        for _ in 0..8 {
            bits.refill();
            bytes.push(bits.peek(8));
            assert!(!bits.is_overrun());
            bits.consume(8);
        }
        assert_eq!(bytes, [0x12, 0xff, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0]);
        assert!(bits.is_overrun());
        assert_eq!(bits.next_marker(), Some(0xd9));
        assert_eq!(bits.next_marker(), None);
    }

    #[test]
    fn a_marker_comes_after_less_than_a_byte() {
        for (count, expected) in [(8, None), (9, Some(0xd3)), (16, Some(0xd3)), (17, None)] {
            let mut bits = Bits::new(&[0x12, 0x34, 0xff, 0xff, 0xd3, 0x56]);
            bits.refill();
            bits.consume(count);
            assert_eq!(bits.marker(), expected, "after {count} bits");
        }
    }

    #[test]
    fn numbers_that_begin_with_zero_are_negative() {
        assert_eq!([extend(0, 1), extend(1, 1), extend(0b00, 2), extend(0b11, 2)], [-1, 1, -3, 3]);
        let mut bits = Bits::new(&[0b0101_0000]);
        bits.refill();
        assert_eq!(bits.number(3), -5);
    }
}
