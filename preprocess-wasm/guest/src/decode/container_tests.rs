//! What a container says beside its pixels: orientation, several frames, palettes.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use super::tests::{decode, exif};
use super::*;

/// Bytes of a little-endian chunk of RIFF.
fn riff(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = name.to_vec();
    chunk.extend((data.len() as u32).to_le_bytes());
    chunk.extend(data);
    if data.len() % 2 == 1 {
        chunk.push(0);
    }
    chunk
}

/// A 2x3 TIFF of grey bytes, uncompressed, with an orientation.
fn tiff(orientation: u16) -> Vec<u8> {
    let tags: [(u16, u16, u32); 9] = [
        (256, 3, 2),
        (257, 3, 3),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (274, 3, u32::from(orientation)),
        (278, 3, 3),
        (279, 4, 6),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([0, 50, 100, 150, 200, 250]);
    bytes
}

#[test]
fn exif_orientation_is_read_from_webp_and_tiff() {
    for orientation in 1..=8 {
        let mut webp = Cursor::new(Vec::new());
        let mut encoder = WebPEncoder::new_lossless(&mut webp);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(&[7; 18], 2, 3, ExtendedColorType::Rgb8).unwrap();
        for bytes in [webp.into_inner(), tiff(u16::from(orientation))] {
            let (header, decoded) = decode(&bytes);
            let name = header.format.name();
            assert_eq!((header.width, header.height), (2, 3), "{name}");
            assert_eq!(header.orientation, Orientation::from_exif(orientation).unwrap(), "{name}");
            assert_eq!(header.upright(), if orientation < 5 { (2, 3) } else { (3, 2) }, "{name}");
            assert_eq!(decoded.pixels.len(), 18);
        }
    }
}

#[test]
fn an_animated_webp_gives_its_first_frame() {
    let frame = |color: [u8; 3]| {
        let mut still = Cursor::new(Vec::new());
        let encoder = WebPEncoder::new_lossless(&mut still);
        encoder.write_image(&color.repeat(4 * 3), 4, 3, ExtendedColorType::Rgb8).unwrap();
        // At (0, 0), 4x3, shown for 100 ms; then the image's own chunk.
        let mut data = vec![0, 0, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 100, 0, 0, 0];
        data.extend(&still.into_inner()[12..]);
        riff(b"ANMF", &data)
    };
    let mut body = b"WEBP".to_vec();
    // Animated, a canvas of 4x3; a background of any colour, for ever.
    body.extend(riff(b"VP8X", &[2, 0, 0, 0, 3, 0, 0, 2, 0, 0]));
    body.extend(riff(b"ANIM", &[255, 255, 255, 255, 0, 0]));
    body.extend(frame([255, 0, 0]));
    body.extend(frame([0, 0, 255]));
    let (header, decoded) = decode(&riff(b"RIFF", &body));
    assert_eq!((header.width, header.height, header.format.name()), (4, 3, "WEBP"));
    // Laid over the background, which may round.
    let is_red = |rgb: &[u8]| rgb[0] >= 254 && rgb[1..] == [0, 0];
    assert!(decoded.pixels.len() == 36 && decoded.pixels.chunks_exact(3).all(is_red), "{:?}", decoded.pixels);
}

/// A BMP of 2x1 pixels, 8 bits each, the second and the first colour of `palette` (blue, green, red, 0 each).
fn bmp(palette: &[[u8; 4]]) -> Vec<u8> {
    let start = 54 + palette.len() as u32 * 4;
    let mut bytes = b"BM".to_vec();
    for field in [start + 4, 0, start, 40, 2, 1] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend([1, 0, 8, 0]);
    for field in [0, 4, 0, 0, palette.len() as u32, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(palette.as_flattened());
    bytes.extend([1, 0, 0, 0]);
    bytes
}

#[test]
fn a_bmp_has_the_mode_that_pillow_gives_its_palette() {
    let ramp: Vec<[u8; 4]> = (0..=255).map(|grey| [grey, grey, grey, 0]).collect();
    let cases = [
        (ramp, "L", [1, 1, 1, 0, 0, 0]),
        (vec![[0, 0, 0, 0], [255, 255, 255, 0]], "1", [255, 255, 255, 0, 0, 0]),
        (vec![[0, 0, 255, 0], [0, 255, 0, 0]], "P", [0, 255, 0, 255, 0, 0]),
    ];
    for (palette, mode, pixels) in cases {
        let (header, decoded) = decode(&bmp(&palette));
        assert_eq!(header.mode, mode);
        assert_eq!(decoded.pixels, pixels, "{mode}");
    }
}
