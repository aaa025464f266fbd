//! PNG row by row: the fast path for what almost every PNG is.
//!
//! It decodes grey and RGB of 8 bits, with or without an alpha channel, not interlaced, and refuses anything else and
//! anything damaged without a verdict: the `image` crate then decodes it or says what is wrong. What is gained: `png`
//! undoes the Paeth filter with branches where there is no x86, and rows that are resampled as they come need no memory
//! for an image, which in a fresh instance costs a page fault for every 4 KiB.

mod bits;
mod codes;
mod filter;
mod inflate;

use fearless_simd::Level;

use filter::PADDING;
use inflate::{Inflate, MARGIN, WINDOW};

/// A PNG that is decoded here, up to its data.
pub(crate) struct Png<'a> {
    width: usize,
    height: usize,
    channels: usize,
    /// The chunks from the first one of image data on.
    chunks: &'a [u8],
}

/// Inflated at a time, besides the window and a row.
const AT_ONCE: usize = 64 << 10;
const _: () = assert!(PADDING <= 16 && MARGIN >= 258 + 8 + 16);

impl<'a> Png<'a> {
    /// Reads up to the data; `None` if it is not decoded here.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        let mut chunks = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
        let (kind, header, rest) = chunk(chunks)?;
        let (&[w3, w2, w1, w0, h3, h2, h1, h0], &[8, color, 0, 0, 0]) = header.split_first_chunk()? else {
            return None;
        };
        let channels = [(0, 1), (2, 3), (4, 2), (6, 4)].into_iter().find(|&(kind, _)| kind == color)?.1;
        let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
        if kind != b"IHDR" || width == 0 || height == 0 {
            return None;
        }
        chunks = rest;
        // The data themselves are looked at when they are decoded.
        while chunks.get(4..8)? != b"IDAT" {
            let (kind, _, rest) = chunk(chunks)?;
            match kind {
                // Transparency of one colour, and animation. What else there is has no part in the pixels.
                b"tRNS" | b"acTL" | b"fcTL" | b"IEND" => return None,
                _ => chunks = rest,
            }
        }
        Some(Self { width: width as usize, height: height as usize, channels, chunks })
    }

    /// Width and height in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Bytes of a pixel: grey, grey and alpha, RGB, or RGB and alpha.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Hands out the rows from above to below. `None` if the data, or what is behind them, are damaged or not all there, or
    /// are more than the rows; the rows so far then mean nothing.
    pub(crate) fn rows(&self, level: Level, mut sink: impl FnMut(&[u8])) -> Option<()> {
        let length = self.width * self.channels;
        let mut inflated = vec![0; WINDOW + AT_ONCE + 1 + length + MARGIN];
        let mut rows = [vec![0; length + PADDING], vec![0; length + PADDING]];
        let (mut from, mut to, mut left) = (0, 0, self.height);
        let mut inflate = Inflate::new(Data { chunks: self.chunks, current: &[] })?;
        loop {
            to = inflate.fill(level, &mut inflated, to)?;
            while to - from > length {
                let [previous, current] = &mut rows;
                // Behind what is inflated there is the margin, which the filters may read as padding.
                let filtered = &inflated[from + 1..from + 1 + length + PADDING];
                filter::undo(level, self.channels, inflated[from], previous, filtered, current)?;
                sink(&current[..length]);
                rows.swap(0, 1);
                from += 1 + length;
                left -= 1;
                if left == 0 {
                    return self.ends(inflate, level, &mut inflated, (from, to));
                }
            }
            if inflate.is_done() {
                return None;
            }
            // What is not handed out yet is less than a row, or within the window.
            let keep = from.min(to.saturating_sub(WINDOW));
            inflated.copy_within(keep..to, 0);
            (from, to) = (from - keep, to - keep);
        }
    }

    /// Whether behind the last row, which ends at `from` of the `to` bytes inflated, there is what has to be: the end of the
    /// deflated data, their checksum, and whole chunks up to `IEND`.
    fn ends(
        &self,
        mut inflate: Inflate<'_>,
        level: Level,
        inflated: &mut [u8],
        (from, to): (usize, usize),
    ) -> Option<()> {
        // What is left is the end of a block, for which there is place behind what earlier bytes may refer to.
        let keep = to.saturating_sub(WINDOW);
        inflated.copy_within(keep..to, 0);
        let is_all = from == to && inflate.fill(level, inflated, to - keep)? == to - keep;
        let mut chunks = (is_all && inflate.is_done()).then(|| inflate.behind())??;
        loop {
            let (kind, _, rest) = chunk(chunks)?;
            if kind == b"IEND" {
                return Some(());
            }
            chunks = rest;
        }
    }
}

/// What is decoded here of a PNG of at most `max_pixels`, for comparison with other decoders: the size, and its pixels with as
/// many bytes as there are channels. `None` for what is left to those.
#[cfg(not(target_arch = "wasm32"))]
pub fn own_png(bytes: &[u8], max_pixels: usize) -> Option<((usize, usize), Vec<u8>)> {
    let png = Png::open(bytes)?;
    let mut pixels = Vec::new();
    let (width, height) = png.size();
    if width.checked_mul(height)? > max_pixels {
        return None;
    }
    png.rows(Level::new(), |row| pixels.extend_from_slice(row))?;
    Some((png.size(), pixels))
}

/// The image data, which lie in many chunks.
#[derive(Clone, Copy)]
struct Data<'a> {
    chunks: &'a [u8],
    current: &'a [u8],
}

impl Data<'_> {
    /// Goes to the next piece. Behind the last one there is none; behind one that is damaged, nothing at all.
    fn next(&mut self) -> Option<()> {
        self.current = &[];
        if self.chunks.get(4..8)? != b"IDAT" {
            return None;
        }
        let next = chunk(self.chunks);
        let (_, current, chunks) = next.unwrap_or((b"IDAT", &[], &[]));
        *self = Self { chunks, current };
        next.is_some().then_some(())
    }
}

/// Kind and content of the first chunk, whose checksum is right, and what is behind it.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (named, rest) = rest.split_at_checked(length.checked_add(4)?)?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (kind, content) = named.split_first_chunk()?;
    // Few inputs of a fuzzer would have a right one; `png` takes them all then, too.
    let is_right = cfg!(fuzzing) || crc32fast::hash(named) == u32::from_be_bytes(*checksum);
    is_right.then_some((kind, content, rest))
}

#[cfg(test)]
mod tests;
