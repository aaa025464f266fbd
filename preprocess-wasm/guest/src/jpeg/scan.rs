//! The entropy-coded data of a baseline scan, to rows of samples (ITU T.81, annex F.2).

use std::hint::black_box;

use fearless_simd::{Level, dispatch};

use super::bits::Bits;
use super::frame::Frame;
use super::huffman::Huffman;
use super::idct::{self, Block, LOW, ORDER};

/// Bytes behind the samples of a row that may be read: they mean nothing.
pub(crate) const ROW_PADDING: usize = 16;

/// How one component is decoded, and the rows of the MCUs that are being decoded.
struct Plane<'t> {
    dc: &'t Huffman,
    ac: &'t Huffman,
    /// What coefficients are multiplied with, in the file's order.
    factors: [f32; 64],
    /// The first coefficient of the block before.
    previous: i32,
    /// Side of a block in samples: 8, 4, 2 or 1.
    size: usize,
    /// Blocks of an MCU beside each other, and above each other.
    horizontal: usize,
    vertical: usize,
    /// Rows of samples, `stride` bytes apart.
    samples: Vec<u8>,
    stride: usize,
    rows: usize,
}

/// The coefficients of a block.
struct Coefficients {
    block: Block,
    /// Four zeros, of which the compiler does not know that they are: it would call `memory.fill` to make a block zero, which
    /// in the sandbox takes longer than most blocks.
    zeros: [f32; 4],
}

impl Coefficients {
    fn new() -> Self {
        Self { block: [0.0; 64], zeros: black_box([0.0; 4]) }
    }

    /// After a block of this size whose last coefficient is `last`. Others than these were multiplied with zero.
    #[inline(always)]
    fn clear(&mut self, size: usize, last: usize) {
        let (rows, _) = self.block.as_chunks_mut::<4>();
        match size {
            8 if last >= LOW => {
                for row in rows {
                    *row = self.zeros;
                }
            }
            4 | 8 => {
                for row in 0..4 {
                    rows[2 * row] = self.zeros;
                }
            }
            _ => {
                for row in 0..2 {
                    rows[2 * row] = self.zeros;
                }
            }
        }
    }
}

/// Decodes all of a frame's data. Each component's blocks become `sizes` samples wide and high, and `sink` gets its rows
/// from above to below: the component's number, and samples up to whole MCUs with [`ROW_PADDING`]. `None` if the data
/// are damaged or end too soon.
pub(super) fn decode(
    level: Level,
    frame: &Frame<'_>,
    sizes: &[usize],
    mut sink: impl FnMut(usize, &[u8]),
) -> Option<()> {
    let (horizontal, vertical) = frame.most();
    let columns = frame.width.div_ceil(8 * horizontal);
    let lines = frame.height.div_ceil(8 * vertical);
    let planes = frame.components.iter().zip(sizes).map(|(component, &size)| {
        let stride = columns * component.horizontal * size + ROW_PADDING;
        let rows = component.vertical * size;
        Some(Plane {
            dc: frame.dc[component.dc].as_ref()?,
            ac: frame.ac[component.ac].as_ref()?,
            factors: std::array::from_fn(|at| {
                f32::from(component.steps[at]) * idct::scale(size, usize::from(ORDER[at]))
            }),
            previous: 0,
            size,
            horizontal: component.horizontal,
            vertical: component.vertical,
            samples: vec![0; stride * rows],
            stride,
            rows,
        })
    });
    let mut planes: Vec<Plane<'_>> = planes.collect::<Option<_>>()?;

    let mut bits = Bits::new(frame.data);
    let mut coefficients = Coefficients::new();
    let (mut until_restart, mut restarts) = (frame.restart, 0_u8);
    for _ in 0..lines {
        for column in 0..columns {
            if frame.restart > 0 {
                if until_restart == 0 {
                    bits = restart(bits, &mut planes, &mut restarts)?;
                    until_restart = frame.restart;
                }
                until_restart -= 1;
            }
            for plane in &mut planes {
                plane.mcu(level, &mut bits, &mut coefficients, column)?;
            }
        }
        if bits.is_overrun() {
            return None;
        }
        for (number, plane) in planes.iter().enumerate() {
            for row in plane.samples.chunks_exact(plane.stride).take(plane.rows) {
                sink(number, row);
            }
        }
    }
    // The end of the image must be there.
    let mut end = bits;
    (end.next_marker()? == 0xd9).then_some(())
}

#[cold]
fn restart<'a>(mut bits: Bits<'a>, planes: &mut [Plane<'_>], restarts: &mut u8) -> Option<Bits<'a>> {
    if bits.marker()? != 0xd0 + *restarts {
        return None;
    }
    *restarts = (*restarts + 1) % 8;
    for plane in planes {
        plane.previous = 0;
    }
    Some(bits)
}

impl Plane<'_> {
    /// Decodes this component's blocks of an MCU.
    #[inline(always)]
    fn mcu(&mut self, level: Level, bits: &mut Bits<'_>, to: &mut Coefficients, column: usize) -> Option<()> {
        let size = self.size;
        for y in 0..self.vertical {
            for x in 0..self.horizontal {
                let last = self.block(bits, to)?;
                let block = &to.block;
                let at = y * size * self.stride + (column * self.horizontal + x) * size;
                let out = &mut self.samples[at..];
                match size {
                    8 if last == 0 => fill(out, self.stride, idct::pixel(block[0])),
                    8 => dispatch!(level, simd => idct::to_8x8(simd, block, last < LOW, out, self.stride)),
                    4 => dispatch!(level, simd => idct::to_4x4(simd, block, out, self.stride)),
                    2 => idct::to_2x2(block, out, self.stride),
                    _ => out[0] = idct::pixel(block[0]),
                }
                to.clear(size, last);
            }
        }
        Some(())
    }

    /// Reads the coefficients of a block, those that its size needs. Returns the place of the last one that is not zero,
    /// in the file's order.
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, to: &mut Coefficients) -> Option<usize> {
        bits.refill();
        let entry = self.dc.look_up(bits)?;
        bits.consume(u32::from(entry.bits));
        // Of the first coefficient, the symbol is the size alone.
        let difference = match entry.symbol {
            0 => 0,
            _ if entry.value != 0 => i32::from(entry.value),
            size @ 1..=11 => bits.number(u32::from(size)),
            _ => return None,
        };
        self.previous = self.previous.wrapping_add(difference);
        to.block[0] = self.previous as i16 as f32 * self.factors[0];

        let used = idct::last_used(self.size);
        let (mut at, mut last) = (1, 0);
        // Several coefficients in each turn: in the sandbox every turn has its price.
        macro_rules! coefficient {
            ($label:lifetime) => {
                if at > used {
                    break $label;
                }
                bits.refill();
                let entry = self.ac.look_up(bits)?;
                bits.consume(u32::from(entry.bits));
                at += entry.run();
                let value = if entry.value != 0 {
                    i32::from(entry.value)
                } else if entry.size() != 0 {
                    bits.number(entry.size())
                } else if entry.run() == 15 {
                    0
                } else {
                    // The end of the block.
                    return Some(last);
                };
                to.block[usize::from(ORDER[at & 127] & 63)] = value as f32 * self.factors[at & 63];
                last = at;
                at += 1;
            };
        }
        'block: loop {
            coefficient!('block);
            coefficient!('block);
            coefficient!('block);
            coefficient!('block);
        }
        // The rest has no part in the result, and is only passed over.
        macro_rules! pass {
            ($label:lifetime) => {
                if at >= 64 {
                    break $label;
                }
                bits.refill();
                let entry = self.ac.look_up(bits)?;
                bits.consume(u32::from(entry.bits));
                if entry.value == 0 {
                    if entry.size() == 0 && entry.run() != 15 {
                        break $label;
                    }
                    bits.consume(entry.size());
                }
                at += entry.run() + 1;
            };
        }
        'rest: loop {
            pass!('rest);
            pass!('rest);
            pass!('rest);
            pass!('rest);
        }
        (at <= 64).then_some(last)
    }
}

/// A block of one colour.
#[inline(always)]
fn fill(out: &mut [u8], stride: usize, value: u8) {
    for y in 0..8 {
        out[y * stride..y * stride + 8].fill(value);
    }
}
