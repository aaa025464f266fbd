//! The entropy-coded data of a baseline scan, to rows of samples (ITU T.81, annex F.2).

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

/// The coefficients of a block, and which of them were set: they are made zero again one by one, since there are few, and
/// the sandbox's `memory.fill` takes longer than most blocks.
struct Coefficients {
    block: Block,
    set: [u8; 64],
    count: usize,
}

impl Coefficients {
    fn new() -> Self {
        Self { block: [0.0; 64], set: [0; 64], count: 0 }
    }

    #[inline(always)]
    fn put(&mut self, place: u8, value: f32) {
        self.block[usize::from(place & 63)] = value;
        self.set[self.count & 63] = place;
        self.count += 1;
    }

    #[inline(always)]
    fn clear(&mut self) {
        for place in &self.set[..self.count.min(64)] {
            self.block[usize::from(place & 63)] = 0.0;
        }
        self.count = 0;
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
                    restart(&mut bits, &mut planes, &mut restarts)?;
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
    (bits.next_marker()? == 0xd9).then_some(())
}

#[cold]
fn restart(bits: &mut Bits<'_>, planes: &mut [Plane<'_>], restarts: &mut u8) -> Option<()> {
    if bits.marker()? != 0xd0 + *restarts {
        return None;
    }
    *restarts = (*restarts + 1) % 8;
    for plane in planes {
        plane.previous = 0;
    }
    Some(())
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
                to.clear();
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
        while at <= used {
            bits.refill();
            let entry = self.ac.look_up(bits)?;
            bits.consume(u32::from(entry.bits));
            at += entry.run();
            let value = if entry.value != 0 {
                i32::from(entry.value)
            } else if entry.size() != 0 {
                bits.number(entry.size())
            } else if entry.run() == 15 {
                at += 1;
                continue;
            } else {
                // The end of the block.
                return Some(last);
            };
            to.put(ORDER[at & 127], value as f32 * self.factors[at & 63]);
            last = at;
            at += 1;
        }
        // The rest has no part in the result, and is only passed over.
        while at < 64 {
            bits.refill();
            let entry = self.ac.look_up(bits)?;
            bits.consume(u32::from(entry.bits));
            if entry.size() == 0 && entry.run() != 15 {
                break;
            }
            if entry.value == 0 {
                bits.consume(entry.size());
            }
            at += entry.run() + 1;
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
