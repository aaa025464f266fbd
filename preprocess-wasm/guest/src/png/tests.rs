//! Against the `image` crate, whole and damaged.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::*;

const COLORS: [(ExtendedColorType, usize); 4] = [
    (ExtendedColorType::L8, 1),
    (ExtendedColorType::La8, 2),
    (ExtendedColorType::Rgb8, 3),
    (ExtendedColorType::Rgba8, 4),
];

/// A picture with edges and some noise.
fn picture(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let sample = |at: usize| {
        let (x, y) = (at / channels % width, at / channels / width);
        let noise = (at.wrapping_mul(2_654_435_761) >> 13) as u8 & 3;
        (x * 3 + y + at % channels * 50) as u8 / 2 + if (x + y) % 40 < 20 { 90 } else { 0 } + noise
    };
    (0..width * height * channels).map(sample).collect()
}

fn encode(
    pixels: &[u8],
    (width, height): (usize, usize),
    color: ExtendedColorType,
    (compression, filter): (CompressionType, FilterType),
) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, compression, filter)
        .write_image(pixels, width as u32, height as u32, color)
        .unwrap();
    bytes.into_inner()
}

fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut pixels = Vec::new();
    Png::open(bytes)?.rows(Level::new(), |row| pixels.extend(row))?;
    Some(pixels)
}

#[test]
fn every_pixel_of_every_colour_and_filter_comes_back() {
    use FilterType::{Adaptive, Avg, NoFilter, Paeth, Sub, Up};
    for (color, channels) in COLORS {
        for size in [(1, 1), (3, 2), (65, 40), (700, 130)] {
            let pixels = picture(size.0, size.1, channels);
            for filter in [NoFilter, Sub, Up, Avg, Paeth, Adaptive] {
                for compression in
                    [CompressionType::Fast, CompressionType::Best, CompressionType::Uncompressed]
                {
                    let bytes = encode(&pixels, size, color, (compression, filter));
                    let decoded = decode(&bytes);
                    assert!(
                        decoded.as_ref() == Some(&pixels),
                        "{color:?} {size:?} {filter:?} {compression:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_that_ends_within_its_data_is_refused() {
    let pixels = picture(60, 50, 3);
    let bytes =
        encode(&pixels, (60, 50), ExtendedColorType::Rgb8, (CompressionType::Fast, FilterType::Adaptive));
    // The last chunk, which has nothing to say, has twelve bytes.
    for end in 0..bytes.len() - 12 {
        assert!(decode(&bytes[..end]).is_none(), "{end} of {}", bytes.len());
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let pixels = picture(60, 50, 4);
    let bytes =
        encode(&pixels, (60, 50), ExtendedColorType::Rgba8, (CompressionType::Fast, FilterType::Adaptive));
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        // Checksums tell, but for the last chunk, which is not looked at.
        let decoded = decode(&flipped);
        assert!(decoded.is_none() || at / 8 >= bytes.len() - 12 && decoded.as_ref() == Some(&pixels), "{at}");
    }
}

#[test]
fn damage_behind_right_checksums_does_no_harm() {
    let pixels = picture(60, 50, 3);
    let bytes =
        encode(&pixels, (60, 50), ExtendedColorType::Rgb8, (CompressionType::Best, FilterType::Adaptive));
    let start = bytes.windows(4).position(|kind| kind == b"IDAT").unwrap();
    let length = u32::from_be_bytes(bytes[start - 4..start].try_into().unwrap()) as usize;
    let end = start + 4 + length;
    for at in (start + 4) * 8..end * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let checksum = crc32fast::hash(&flipped[start..end]);
        flipped[end..end + 4].copy_from_slice(&checksum.to_be_bytes());
        if let Some(decoded) = decode(&flipped) {
            let image = image::load_from_memory(&flipped).map(|image| image.into_rgb8().into_raw());
            assert!(image.is_ok_and(|image| image == decoded), "bit {at} is taken otherwise by others");
        }
    }
}

#[test]
fn rows_of_any_length_fit_however_the_data_lie() {
    // Rows longer than what is inflated at once, and so many that the buffer is full at any place in one.
    for size in [(70_000, 3), (30_000, 20), (1, 300_000), (333, 3000)] {
        let pixels = picture(size.0, size.1, 1);
        for compression in [CompressionType::Fast, CompressionType::Best, CompressionType::Uncompressed] {
            let bytes = encode(&pixels, size, ExtendedColorType::L8, (compression, FilterType::Up));
            assert!(decode(&bytes).as_ref() == Some(&pixels), "{size:?} {compression:?}");
        }
    }
}
