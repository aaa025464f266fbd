//! PNG row by row: the fast path for what almost every PNG is.
//!
//! It decodes grey and RGB of 8 bits, with or without an alpha channel, not interlaced, and refuses anything else and
//! anything damaged without a verdict: the `image` crate then decodes it or says what is wrong. What is gained: `png`
//! undoes the Paeth filter with branches where there is no x86, and rows that are resampled as they come need no memory
//! for an image, which in a fresh instance costs a page fault for every 4 KiB.

mod filter;

use fdeflate::Decompressor;
use fearless_simd::Level;

use filter::PADDING;

/// A PNG that is decoded here, up to its data.
pub(crate) struct Png<'a> {
    width: usize,
    height: usize,
    channels: usize,
    /// The chunks from the first one of image data on.
    chunks: &'a [u8],
}

/// What a back reference of deflate may reach back to, in bytes.
const WINDOW: usize = 32 << 10;
/// Inflated at a time, besides the window and a row.
const AT_ONCE: usize = 64 << 10;

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
        loop {
            let (kind, _, rest) = chunk(chunks)?;
            match kind {
                b"IDAT" => break,
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

    /// Hands out the rows from above to below. `None` if the data are damaged or end too soon; the rows so far then mean
    /// nothing.
    pub(crate) fn rows(&self, level: Level, mut sink: impl FnMut(&[u8])) -> Option<()> {
        let length = self.width * self.channels;
        // The window, what is inflated, and what the filters may read behind a row.
        let capacity = WINDOW + AT_ONCE + 1 + length;
        let mut inflated = vec![0; capacity + PADDING];
        let mut rows = [vec![0; length + PADDING], vec![0; length + PADDING]];
        let (mut from, mut to, mut left) = (0, 0, self.height);
        let mut data = Data { chunks: self.chunks, current: &[] };
        let mut inflate = Decompressor::new();
        inflate.ignore_adler32();
        while left > 0 {
            if data.current.is_empty() {
                data.next()?;
            }
            let (read, written) = inflate.read(data.current, &mut inflated[..capacity], to, false).ok()?;
            data.current = &data.current[read..];
            to += written;
            while left > 0 && to - from > length {
                let [previous, current] = &mut rows;
                filter::undo(
                    level,
                    self.channels,
                    inflated[from],
                    previous,
                    &inflated[from + 1..from + 1 + length + PADDING],
                    current,
                )?;
                sink(&current[..length]);
                rows.swap(0, 1);
                from += 1 + length;
                left -= 1;
            }
            if left > 0 && read == 0 && written == 0 && (inflate.is_done() || !data.current.is_empty()) {
                return None;
            }
            if to == capacity {
                // What is not handed out yet is less than a row, or within the window.
                let keep = from.min(to - WINDOW);
                inflated.copy_within(keep..to, 0);
                (from, to) = (from - keep, to - keep);
            }
        }
        Some(())
    }
}

/// The image data, which lie in many chunks.
struct Data<'a> {
    chunks: &'a [u8],
    current: &'a [u8],
}

impl Data<'_> {
    fn next(&mut self) -> Option<()> {
        let (kind, data, rest) = chunk(self.chunks)?;
        (self.chunks, self.current) = (rest, data);
        (kind == b"IDAT").then_some(())
    }
}

/// Kind and content of the first chunk, whose checksum is right, and what is behind it.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (named, rest) = rest.split_at_checked(length.checked_add(4)?)?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (kind, content) = named.split_first_chunk()?;
    (crc32fast::hash(named) == u32::from_be_bytes(*checksum)).then_some((kind, content, rest))
}

#[cfg(test)]
mod tests;
