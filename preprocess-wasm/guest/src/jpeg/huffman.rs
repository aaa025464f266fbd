//! Huffman tables (ITU T.81, annexes C and F.2.2.3), with the first bits of the stream looked up at once.

use super::bits::{Bits, extend};

/// Bits that are looked up at once. Longer codes are rare.
const LOOKUP: u32 = 10;

/// A table of codes, and what the first bits of the stream mean.
pub(super) struct Huffman {
    lookup: Box<[Entry; 1 << LOOKUP]>,
    /// For each length: the first code that is longer, in the highest of 16 bits.
    limit: [u32; 18],
    /// For each length: what is added to a code to find its symbol.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

/// What the next bits mean. For coefficients (AC): skip `run` zeros, then there is `value`; `bits` are consumed.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    /// Zero: the number is not within the looked-up bits, or there is none.
    pub(super) value: i16,
    /// Bits to consume: with a value, of the code and the number; without one, of the code alone. Zero: a longer code.
    pub(super) bits: u8,
    /// The symbol: run and size of the number.
    pub(super) symbol: u8,
}

impl Huffman {
    /// From the counts of codes of each length and their symbols; `None` if there cannot be such codes.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let (mut limit, mut offset) = ([u32::MAX; 18], [0; 17]);
        let mut lookup = Box::new([Entry::default(); 1 << LOOKUP]);
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            offset[length as usize] = index as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                let &symbol = symbols.get(index)?;
                // Codes are no longer than their length allows.
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKUP {
                    let free = LOOKUP - length;
                    let first = (code << free) as usize;
                    for (rest, entry) in lookup[first..first + (1 << free)].iter_mut().enumerate() {
                        *entry = Entry::of(symbol, length, rest as u32, free);
                    }
                }
                code += 1;
                index += 1;
            }
            limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(Self { lookup, limit, offset, symbols: symbols.to_vec() })
    }

    /// What the next bits mean; their number is not consumed. After a refill.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: &Bits<'_>) -> Option<Entry> {
        let entry = self.lookup[bits.peek(LOOKUP) as usize];
        if entry.bits != 0 { Some(entry) } else { self.look_up_long(bits.peek(16)) }
    }

    #[cold]
    #[inline(never)]
    fn look_up_long(&self, code: u32) -> Option<Entry> {
        let length = (LOOKUP as usize + 1..=16).find(|&length| code < self.limit[length])?;
        let index = (code >> (16 - length)) as i32 + self.offset[length];
        let symbol = *self.symbols.get(usize::try_from(index).ok()?)?;
        Some(Entry { value: 0, bits: length as u8, symbol })
    }
}

impl Entry {
    /// What `symbol` means whose code has `length` bits, if the `free` bits after it are `rest`.
    fn of(symbol: u8, length: u32, rest: u32, free: u32) -> Self {
        let size = u32::from(symbol & 0x0f);
        if size == 0 || size > free {
            return Self { value: 0, bits: length as u8, symbol };
        }
        let value = extend((rest >> (free - size)) as i32, size);
        Self { value: value as i16, bits: (length + size) as u8, symbol }
    }

    /// Zeros before the number.
    #[inline(always)]
    pub(super) fn run(self) -> usize {
        usize::from(self.symbol >> 4)
    }

    /// Bits of the number.
    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        u32::from(self.symbol & 0x0f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn short_and_long_codes_are_found() {
        // Codes 0, 10, 110, ... of lengths 1 to 16; symbols of run 0 and size as their index, below 16.
        let symbols: Vec<u8> = (0..16).collect();
        let huffman = Huffman::new(&[1; 16], &symbols).unwrap();
        // Code 10 is symbol 1, a number of one bit: 1.
        let mut bits = Bits::new(&[0b1010_0000]);
        bits.refill();
        let entry = huffman.look_up(&bits).unwrap();
        assert_eq!((entry.value, entry.bits, entry.symbol), (1, 3, 1));
        // Twelve ones and a zero: the code of length 13.
        let mut bits = Bits::new(&[0xff, 0, 0b1111_0000, 0, 0]);
        bits.refill();
        let entry = huffman.look_up(&bits).unwrap();
        assert_eq!((entry.value, entry.bits, entry.symbol), (0, 13, 12));
        // Sixteen ones are no code.
        let mut bits = Bits::new(&[0xff, 0, 0xff, 0]);
        bits.refill();
        assert!(huffman.look_up(&bits).is_none());
    }

    #[test]
    fn more_codes_than_there_is_room_for_are_refused() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none());
        counts[0] = 2;
        assert!(Huffman::new(&counts, &[1]).is_none());
    }
}
