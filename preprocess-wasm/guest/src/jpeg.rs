//! Baseline JPEG, straight to planes of samples: the fast path for what almost every photo is.
//!
//! It decodes what it is sure of, a scan of 8-bit Huffman-coded Y or YCbCr with all components in it, and refuses
//! anything else and anything damaged without a verdict: `jpeg-decoder` then decodes it or says what is wrong. So there
//! is one authority on what is a JPEG.
//!
//! Rows of samples are handed out as they are decoded and never stored as an image: what they become is small, and
//! memory that a fresh instance has not touched yet costs a page fault for every 4 KiB.

mod bits;
mod frame;
mod huffman;
mod idct;
mod scan;

use fearless_simd::Level;

use frame::Frame;
pub(crate) use scan::ROW_PADDING;

/// A JPEG that is decoded here, up to its data.
pub(crate) struct Baseline<'a> {
    frame: Frame<'a>,
}

/// Where a component's samples lie in the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    /// Samples of the component, not scaled, per pixel of the image, horizontally: 1 or less.
    pub(crate) horizontal: f64,
    /// The same vertically.
    pub(crate) vertical: f64,
}

impl<'a> Baseline<'a> {
    /// Reads up to the data; `None` if it is not decoded here.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { frame: Frame::read(bytes)? })
    }

    /// Whether the components' identifiers spell RGB, which libjpeg believes if no marker says otherwise.
    pub(crate) fn is_named_rgb(&self) -> bool {
        self.frame.ids().eq(*b"RGB")
    }

    /// Width and height of the image in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.frame.width, self.frame.height)
    }

    /// The components: Y, or Y, Cb and Cr.
    pub(crate) fn components(&self) -> Vec<Sampling> {
        let (horizontal, vertical) = self.frame.most();
        let sampling = |component: &frame::Component| Sampling {
            horizontal: component.horizontal as f64 / horizontal as f64,
            vertical: component.vertical as f64 / vertical as f64,
        };
        self.frame.components.iter().map(sampling).collect()
    }

    /// Decodes each component with blocks of 8, 4, 2 or 1 samples a side, as `sizes` has it: at that many eighths of its
    /// size. `sink` gets the rows of each component in order, with what fills the last MCU and [`ROW_PADDING`] bytes
    /// behind them. `None` if the data are damaged or end too soon; the rows so far then mean nothing.
    pub(crate) fn decode(&self, sizes: &[usize], sink: impl FnMut(usize, &[u8])) -> Option<()> {
        scan::decode(Level::new(), &self.frame, sizes, sink)
    }
}

#[cfg(test)]
mod tests;
