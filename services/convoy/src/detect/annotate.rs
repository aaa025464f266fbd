//! Annotated copies: boxes and labels drawn into the photo.

use super::client::Detection;
use super::glyphs::{GLYPH, draw, fill};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Rgb, RgbImage};
use std::io::Cursor;
use std::path::Path;

/// Of JPEG copies, 1..100.
const JPEG_QUALITY: u8 = 92;

/// Well apart from each other and from most streets; black or white text is readable on each.
const COLORS: [[u8; 3]; 8] = [
    [230, 25, 75],
    [60, 180, 75],
    [0, 110, 230],
    [245, 130, 48],
    [145, 30, 180],
    [255, 225, 25],
    [70, 220, 230],
    [240, 50, 230],
];

/// Writes a copy of `photo` with `detections` drawn into it to `target`; returns the size of the upright photo.
///
/// # Errors
/// A sentence: the photo cannot be decoded here, or the copy cannot be written.
pub(super) fn annotate(photo: &[u8], detections: &[Detection], target: &Path) -> Result<(u32, u32), String> {
    let mut image = upright(photo).map_err(|error| format!("It cannot be drawn into: {error}."))?;
    draw_detections(&mut image, detections);
    let is_jpeg = target.extension().is_some_and(|extension| extension != "png");
    let mut bytes = Cursor::new(Vec::new());
    let encoded = if is_jpeg {
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))
    } else {
        image.write_to(&mut bytes, image::ImageFormat::Png)
    };
    let unwritable = |error: &dyn std::fmt::Display| {
        format!("Its annotated copy {} cannot be written: {error}.", target.display())
    };
    encoded.map_err(|error| unwritable(&error))?;
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(&error))?;
    }
    std::fs::write(target, bytes.into_inner()).map_err(|error| unwritable(&error))?;
    Ok(image.dimensions())
}

/// Decodes a photo and turns it as its EXIF data say: the server's boxes are of the upright photo.
fn upright(photo: &[u8]) -> image::ImageResult<RgbImage> {
    let mut decoder = ImageReader::new(Cursor::new(photo)).with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Draws the boxes, the best last so that it lies on top.
pub(super) fn draw_detections(image: &mut RgbImage, detections: &[Detection]) {
    for detection in detections.iter().rev() {
        draw_detection(image, detection);
    }
}

fn draw_detection(image: &mut RgbImage, detection: &Detection) {
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    let line = (shorter / 200).clamp(1, 32);
    let scale = (shorter / 200).clamp(1, 64);
    let color = color_of(&detection.class_name);
    let [x_min, y_min, x_max, y_max] = detection.bbox.in_pixels(width, height);

    fill(image, x_min, y_min, x_max, y_max.min(y_min + line), color);
    fill(image, x_min, y_max.saturating_sub(line).max(y_min), x_max, y_max, color);
    fill(image, x_min, y_min, x_max.min(x_min + line), y_max, color);
    fill(image, x_max.saturating_sub(line).max(x_min), y_min, x_max, y_max, color);

    let label = format!("{} {:.2}", detection.class_name, detection.confidence);
    let characters = u32::try_from(label.chars().count()).unwrap_or(u32::MAX);
    let (label_width, label_height) =
        (characters.saturating_mul(GLYPH).saturating_add(2).saturating_mul(scale), (GLYPH + 2) * scale);
    // Above the box where there is room, else inside; never out of the photo where it fits into it.
    let top = if y_min >= label_height { y_min - label_height } else { y_min };
    let left = x_min.min(width.saturating_sub(label_width));
    fill(image, left, top, left.saturating_add(label_width), top + label_height, color);
    draw(image, &label, left + scale, top + scale, scale, text_on(color));
}

/// The same color for the same class in every photo: FNV-1a over its name, of which the middle bits are taken, since
/// the lowest are alike for short names.
fn color_of(class: &str) -> Rgb<u8> {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = class.bytes().fold(0x811c_9dc5_u32, step);
    Rgb(COLORS[(hash >> 16) as usize % COLORS.len()])
}

/// Black or white, whichever stands out (luma of ITU-R BT.601).
fn text_on(Rgb([red, green, blue]): Rgb<u8>) -> Rgb<u8> {
    let luma = (299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)) / 1000;
    if luma > 140 { Rgb([0; 3]) } else { Rgb([255; 3]) }
}

#[cfg(test)]
mod tests;
