//! The pixel layout of stored images in Pillow's words, read from their headers.
//!
//! The words are those that `Image.open(...).mode` gives, as documented in Pillow's "Concepts" chapter.

use image::ExtendedColorType;

use super::Format;

/// The word for a PNG, WebP, GIF, BMP or TIFF image. `color` is what its decoder says.
pub(super) fn of(format: Format, bytes: &[u8], color: ExtendedColorType) -> &'static str {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    match format {
        // Bit depth and colour type of IHDR.
        Format::Png => match (byte(24), byte(25)) {
            (1, 0) => "1",
            (16, 0) => "I;16",
            (_, 0) => "L",
            (_, 3) => "P",
            (_, 4) => "LA",
            (_, 6) => "RGBA",
            _ => "RGB",
        },
        Format::Gif => gif(bytes),
        // Bits per pixel: in BITMAPCOREHEADER at 24, in its successors at 28.
        Format::Bmp => match if byte(14) == 12 { byte(24) } else { byte(28) } {
            bits @ 1..=8 => bmp_palette(bytes, bits),
            32 if color == ExtendedColorType::Rgba8 => "RGBA",
            _ => "RGB",
        },
        Format::Jpeg | Format::WebP | Format::Tiff => of_color(color),
    }
}

fn of_color(color: ExtendedColorType) -> &'static str {
    use ExtendedColorType as Color;
    match color {
        Color::L1 => "1",
        Color::L8 => "L",
        Color::L16 => "I;16",
        Color::La8 | Color::La16 => "LA",
        Color::Rgba8 | Color::Rgba16 | Color::Rgba32F => "RGBA",
        Color::Cmyk8 | Color::Cmyk16 => "CMYK",
        _ => "RGB",
    }
}

/// Pillow calls a BMP with a palette `1` if that is black and white, `L` if it is the grey ramp, else `P`.
fn bmp_palette(bytes: &[u8], bits: u8) -> &'static str {
    let number = |at: usize| -> usize {
        bytes.get(at..at + 4).map_or(0, |n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]) as usize)
    };
    let header = number(14);
    // BITMAPCOREHEADER has entries of three bytes and does not say how many.
    let entry = if header == 12 { 3 } else { 4 };
    let colors = match if header < 40 { 0 } else { number(46) } {
        0 => 1 << bits,
        colors => colors.min(256),
    };
    let Some(palette) = bytes.get(14 + header.min(124)..).and_then(|rest| rest.get(..colors * entry)) else {
        return "P";
    };
    let grey = |i: usize| if colors == 2 { i * 255 } else { i };
    let is_ramp = palette
        .chunks_exact(entry)
        .enumerate()
        .all(|(i, color)| color[..3].iter().all(|&c| usize::from(c) == grey(i)));
    match (is_ramp, colors) {
        (true, 2) => "1",
        (true, _) => "L",
        (false, _) => "P",
    }
}

/// Pillow calls a GIF `L` if its palette is the grey ramp, else `P`.
fn gif(bytes: &[u8]) -> &'static str {
    let flags = bytes.get(10).copied().unwrap_or(0);
    if flags & 0x80 == 0 {
        return "P";
    }
    let length = 3 << ((flags & 7) + 1);
    let Some(palette) = bytes.get(13..13 + length) else { return "P" };
    let is_ramp =
        palette.chunks_exact(3).enumerate().all(|(i, rgb)| rgb.iter().all(|&c| usize::from(c) == i));
    if is_ramp { "L" } else { "P" }
}
