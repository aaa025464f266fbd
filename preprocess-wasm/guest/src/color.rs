//! The colours a model wants: what the bytes of a pixel are.

use crate::resize::{Color, Rgb};

/// An image of the target's size, in the colours that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resized {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What the bytes are.
    pub color: Color,
    /// Rows of interleaved pixels.
    pub pixels: Vec<u8>,
}

impl Resized {
    /// Brings RGB into these colours.
    pub fn of(image: Rgb, color: Color) -> Self {
        let Rgb { width, height, mut pixels } = image;
        match color {
            Color::Rgb => {}
            Color::Bgr => {
                for pixel in pixels.chunks_exact_mut(3) {
                    pixel.swap(0, 2);
                }
            }
            Color::Gray => pixels = pixels.chunks_exact(3).map(|rgb| luma(rgb[0], rgb[1], rgb[2])).collect(),
        }
        Self { width, height, color, pixels }
    }
}

/// Luma of ITU-R BT.601 in 16 bits, rounded: what Pillow's `convert("L")` gives.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Rgb {
        Rgb { width: 2, height: 1, pixels: vec![255, 0, 10, 1, 200, 3] }
    }

    #[test]
    fn each_colour_has_its_bytes() {
        assert_eq!(Resized::of(image(), Color::Rgb).pixels, [255, 0, 10, 1, 200, 3]);
        assert_eq!(Resized::of(image(), Color::Bgr).pixels, [10, 0, 255, 3, 200, 1]);
        // As Pillow gives: 77, 118.
        assert_eq!(Resized::of(image(), Color::Gray).pixels, [77, 118]);
    }

    #[test]
    fn gray_of_gray_is_the_same() {
        assert!((0..=255).all(|value| luma(value, value, value) == value));
    }
}
