//! Text in pixels: the 8x8 bitmap font of the crate `font8x8`, enlarged by whole numbers so that it stays sharp.

use font8x8::UnicodeFonts as _;
use image::{Rgb, RgbImage};

/// Edge of a glyph before it is enlarged, in pixels.
pub(super) const GLYPH: u32 = 8;

/// Draws `text` with its upper left corner at `x`, `y`, each dot of the font `scale` pixels wide. What lies outside
/// the image is left out; a character that the font lacks becomes `?`.
pub(super) fn draw(image: &mut RgbImage, text: &str, x: u32, y: u32, scale: u32, color: Rgb<u8>) {
    let mut left = x;
    for character in text.chars() {
        for (row, dots) in (0..).zip(glyph(character)) {
            for column in (0..GLYPH).filter(|column| dots >> column & 1 == 1) {
                let (dot_x, dot_y) = (left + column * scale, y + row * scale);
                fill(image, dot_x, dot_y, dot_x + scale, dot_y + scale, color);
            }
        }
        left += GLYPH * scale;
    }
}

/// Fills the pixels from `x_min`, `y_min` up to, not including, `x_max`, `y_max`, as far as the image goes.
pub(super) fn fill(image: &mut RgbImage, x_min: u32, y_min: u32, x_max: u32, y_max: u32, color: Rgb<u8>) {
    for y in y_min..y_max.min(image.height()) {
        for x in x_min..x_max.min(image.width()) {
            image.put_pixel(x, y, color);
        }
    }
}

/// Eight rows; the lowest bit is the leftmost dot.
fn glyph(character: char) -> [u8; 8] {
    let found = font8x8::BASIC_FONTS.get(character).or_else(|| font8x8::LATIN_FONTS.get(character));
    let found = found.or_else(|| font8x8::GREEK_FONTS.get(character));
    found.or_else(|| font8x8::BASIC_FONTS.get('?')).unwrap_or([0xff; 8])
}
