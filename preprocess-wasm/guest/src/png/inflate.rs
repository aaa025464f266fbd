//! Inflate (RFC 1950 and 1951), from data that lie in pieces into a buffer that slides along what they become.
//!
//! In the sandbox each turn of a loop costs a question whether the guest must stop. So a turn takes up to eight literals, and
//! matches are copied by vectors. It accepts no more than `fdeflate`, which the `png` crate inflates with.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, u8x16};

use super::Data;
use super::bits::Bits;
use super::codes::Codes;

/// What a match may reach back to, in bytes.
pub(super) const WINDOW: usize = 32 << 10;
/// Bytes at the end of the buffer that are written for nothing: a turn's literals, and a match in whole vectors.
pub(super) const MARGIN: usize = 320;

/// Flags of entries for literals and lengths, and for distances. Entries have extra bits from the 8th bit on and their base from
/// the 16th on; literals have 8 for each byte there, and the bytes.
const LITERAL: u32 = 1 << 15;
const END: u32 = 1 << 14;
const INVALID: u32 = 1 << 13;

const LITERALS_AT_ONCE: usize = 1 << 12;
const DISTANCES_AT_ONCE: usize = 1 << 9;

/// Inflates the data of a PNG.
pub(super) struct Inflate<'a> {
    bits: Bits<'a>,
    block: Block,
    is_last: bool,
    is_fixed: bool,
    literals: Codes<LITERALS_AT_ONCE>,
    distances: Codes<DISTANCES_AT_ONCE>,
}

/// In what kind of block the data go on.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    Header,
    /// So many bytes as they are.
    Stored(usize),
    Coded,
    Done,
}

impl<'a> Inflate<'a> {
    /// Reads the header of the whole (RFC 1950).
    pub(super) fn new(data: Data<'a>) -> Option<Self> {
        let mut bits = Bits::new(data);
        let (method, flags) = (bits.take(8), bits.take(8));
        // Deflate, with a window of 32 KiB at most, and without a dictionary.
        if method & 15 != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 != 0 || flags & 32 != 0 {
            return None;
        }
        let literals = Codes::new(literal_or_length);
        let distances = Codes::new(distance);
        Some(Self { bits, block: Block::Header, is_last: false, is_fixed: false, literals, distances })
    }

    /// Goes on behind the `to` bytes of `out` that are there, until no more than [`MARGIN`] are free or all is done. Returns
    /// how many there are then; `None` if the data are damaged or too short.
    #[inline(never)]
    pub(super) fn fill(&mut self, level: Level, out: &mut [u8], mut to: usize) -> Option<usize> {
        let end = out.len().checked_sub(MARGIN)?;
        while to < end {
            match self.block {
                Block::Header if self.is_last => self.block = Block::Done,
                Block::Header => self.header()?,
                Block::Stored(0) => self.block = Block::Header,
                Block::Stored(left) => {
                    let count = self.bits.copy(&mut out[to..end.min(to + left)])?;
                    to += count;
                    self.block = Block::Stored(left - count);
                }
                Block::Coded => to = dispatch!(level, simd => self.coded(simd, out, to))?,
                Block::Done => break,
            }
            if self.bits.is_overrun() {
                return None;
            }
        }
        Some(to)
    }

    /// Whether there is nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.block == Block::Done
    }

    /// The chunks behind the data, once all is inflated; `None` if the data do not end with their Adler-32. That is not
    /// compared: the pieces have checksums already, and `png` does not compare it either.
    pub(super) fn behind(mut self) -> Option<&'a [u8]> {
        self.bits.align();
        for _ in 0..2 {
            self.bits.take(16);
        }
        self.bits.behind()
    }

    fn header(&mut self) -> Option<()> {
        self.is_last = self.bits.take(1) == 1;
        self.block = match self.bits.take(2) {
            0 => {
                self.bits.align();
                let (length, complement) = (self.bits.take(16), self.bits.take(16));
                if length ^ complement != 0xffff {
                    return None;
                }
                Block::Stored(length as usize)
            }
            1 => {
                self.fixed()?;
                Block::Coded
            }
            2 => {
                self.dynamic()?;
                Block::Coded
            }
            _ => return None,
        };
        Some(())
    }

    /// RFC 1951, 3.2.6.
    fn fixed(&mut self) -> Option<()> {
        if !self.is_fixed {
            let lengths: [u8; 288] = std::array::from_fn(|symbol| match symbol {
                0..=143 | 280.. => 8,
                144..=255 => 9,
                256..=279 => 7,
            });
            self.literals.set(&lengths, false)?;
            self.literals.join(pair);
            self.distances.set(&[5; 32], false)?;
            self.is_fixed = true;
        }
        Some(())
    }

    /// RFC 1951, 3.2.7.
    fn dynamic(&mut self) -> Option<()> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        self.is_fixed = false;
        let bits = &mut self.bits;
        let (literals, distances) = (bits.take(5) as usize + 257, bits.take(5) as usize + 1);
        let count = bits.take(4) as usize + 4;
        if literals > 286 || distances > 30 {
            return None;
        }
        let mut of_lengths = [0; 19];
        for &at in &ORDER[..count] {
            of_lengths[at] = bits.take(3) as u8;
        }
        let mut codes = Codes::<128>::new(|symbol| (symbol as u32) << 16);
        codes.set(&of_lengths, false)?;
        let mut lengths = [0_u8; 286 + 30];
        let mut at = 0;
        while at < literals + distances {
            bits.refill();
            let entry = codes.look_up(bits.peek());
            bits.consume(entry & 15);
            let (value, repeat) = match entry >> 16 {
                16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                18 => (0, 11 + bits.take(7)),
                length => (length as u8, 1),
            };
            lengths[..literals + distances].get_mut(at..at + repeat as usize)?.fill(value);
            at += repeat as usize;
        }
        let (of_literals, of_distances) = lengths[..literals + distances].split_at(literals);
        // Without a code for its end no block ends.
        if of_literals[256] == 0 {
            return None;
        }
        self.literals.set(of_literals, false)?;
        self.literals.join(pair);
        self.distances.set(of_distances, true)
    }

    /// Decodes until the block ends or no more than [`MARGIN`] bytes are free.
    #[inline(always)]
    fn coded<S: Simd>(&mut self, simd: S, out: &mut [u8], mut to: usize) -> Option<usize> {
        let end = out.len() - MARGIN;
        let mut bits = self.bits;
        while to < end {
            bits.refill();
            // Four entries have 48 bits at most, and eight bytes.
            let (mut bytes, mut shift) = (0_u64, 0);
            let mut entry = self.literals.look_up(bits.peek());
            let mut is_match = false;
            for _ in 0..4 {
                if !is_match {
                    if entry & LITERAL != 0 {
                        bytes |= u64::from(entry >> 16) << shift;
                        shift += entry >> 8 & 0x1f;
                        bits.consume(entry & 0xff);
                        entry = self.literals.look_up(bits.peek());
                    } else {
                        is_match = true;
                    }
                }
            }
            out[to..to + 8].copy_from_slice(&bytes.to_le_bytes());
            to += shift as usize / 8;
            if !is_match {
                continue;
            }
            bits.refill();
            if entry == 0 {
                entry = self.literals.look_up_long(bits.peek())?;
                if entry & LITERAL != 0 {
                    bits.consume(entry & 0xff);
                    out[to] = (entry >> 16) as u8;
                    to += 1;
                    continue;
                }
            }
            bits.consume(entry & 0xff);
            if entry & (END | INVALID) != 0 {
                if entry & INVALID != 0 {
                    return None;
                }
                self.block = Block::Header;
                break;
            }
            let length = (entry >> 16) as usize + bits.extra(entry);
            let mut entry = self.distances.look_up(bits.peek());
            if entry == 0 {
                entry = self.distances.look_up_long(bits.peek())?;
            }
            if entry & INVALID != 0 {
                return None;
            }
            bits.consume(entry & 0xff);
            let distance = (entry >> 16) as usize + bits.extra(entry);
            copy(simd, out, to, distance, length)?;
            to += length;
        }
        self.bits = bits;
        Some(to)
    }
}

/// Copies `length` bytes, up to 258, from `distance` bytes before to `to`, and some more.
#[inline(always)]
fn copy<S: Simd>(simd: S, out: &mut [u8], to: usize, distance: usize, length: usize) -> Option<()> {
    let from = to.checked_sub(distance)?;
    let load = |out: &[u8], at: usize| u8x16::from_slice(simd, &out[at..at + 16]);
    if distance >= 16 {
        load(out, from).store_slice(&mut out[to..to + 16]);
        load(out, from + 16).store_slice(&mut out[to + 16..to + 32]);
        let mut at = 32;
        while at < length {
            load(out, from + at).store_slice(&mut out[to + at..to + at + 16]);
            load(out, from + at + 16).store_slice(&mut out[to + at + 16..to + at + 32]);
            at += 32;
        }
    } else {
        // The bytes from there on, again and again.
        let places = u8x16::from_slice(simd, &REPEATED[distance]);
        let pattern = load(out, from).swizzle_dyn_precise(places);
        let step = 16 / distance.max(1) * distance;
        let mut at = 0;
        while at < length {
            pattern.store_slice(&mut out[to + at..to + at + 16]);
            pattern.store_slice(&mut out[to + at + step..to + at + step + 16]);
            at += 2 * step;
        }
    }
    Some(())
}

/// For each distance below 16, where sixteen bytes come from.
const REPEATED: [[u8; 16]; 16] = {
    let mut repeated = [[0; 16]; 16];
    let mut distance = 1;
    while distance < 16 {
        let mut at = 0;
        while at < 16 {
            repeated[distance][at] = (at % distance) as u8;
            at += 1;
        }
        distance += 1;
    }
    repeated
};

/// Two literals in one entry, if the bits that are looked up have both.
fn pair(entry: u32, table: &[u32; LITERALS_AT_ONCE], behind: usize) -> u32 {
    let next = table[behind & (LITERALS_AT_ONCE - 1)];
    let bits = (entry & 0xff) + (next & 0xff);
    let is_pair = entry & next & LITERAL != 0 && bits <= LITERALS_AT_ONCE.ilog2() && next & 0x1f00 == 0x800;
    if is_pair { LITERAL | (next >> 16) << 24 | entry & 0xff_0000 | 0x1000 | bits } else { entry }
}

/// RFC 1951, 3.2.5.
fn literal_or_length(symbol: usize) -> u32 {
    const EXTRA: [u8; 29] =
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
    const BASE: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163,
        195, 227, 258,
    ];
    match symbol {
        0..=255 => LITERAL | (symbol as u32) << 16 | 0x800,
        256 => END,
        257..=285 => u32::from(BASE[symbol - 257]) << 16 | u32::from(EXTRA[symbol - 257]) << 8,
        _ => INVALID,
    }
}

fn distance(symbol: usize) -> u32 {
    match symbol as u32 {
        symbol @ 0..=3 => (symbol + 1) << 16,
        symbol @ 4..=29 => {
            let extra = symbol / 2 - 1;
            (((2 + symbol % 2) << extra) + 1) << 16 | extra << 8
        }
        _ => INVALID,
    }
}

#[cfg(test)]
mod tests;
