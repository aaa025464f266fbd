//! Against the `image` crate, whole and damaged.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::*;
use crate::error::Error;
use crate::resize::{Color, Decode, Filter, Fit, Options};

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

/// A chunk with its checksum.
fn chunk_of(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [&kind[..], content].concat();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], &named, &crc32fast::hash(&named).to_be_bytes()].concat()
}

/// What is before the data of a PNG of one such chunk, and the content of that.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.windows(4).position(|kind| kind == b"IDAT").unwrap();
    let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    (&bytes[..at - 4], &bytes[at + 4..at + 4 + length])
}

fn small() -> (Vec<u8>, Vec<u8>) {
    let pixels = picture(60, 50, 3);
    let how = (CompressionType::Fast, FilterType::Adaptive);
    let bytes = encode(&pixels, (60, 50), ExtendedColorType::Rgb8, how);
    (pixels, bytes)
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let (pixels, bytes) = small();
    let (begin, data) = parts(&bytes);
    // The last pieces hold the last row's end, the checksum's, and nothing.
    let (pieces, end) = (data.len() / 2, chunk_of(b"IEND", b""));
    let split = [
        begin,
        &chunk_of(b"IDAT", &data[..pieces]),
        &chunk_of(b"IDAT", &data[pieces..data.len() - 5]),
        &chunk_of(b"IDAT", &data[data.len() - 5..data.len() - 2]),
        &chunk_of(b"IDAT", &data[data.len() - 2..]),
        &chunk_of(b"IDAT", b""),
        &chunk_of(b"tEXt", b"Comment\0behind"),
        &end,
    ]
    .concat();
    for bytes in [bytes, split] {
        assert!(decode(&bytes).as_ref() == Some(&pixels), "whole");
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_none(), "{end} of {}", bytes.len());
        }
    }
}

#[test]
fn a_file_that_is_cut_off_within_its_data_is_truncated_for_everybody() {
    let (_, bytes) = small();
    let options = Options {
        width: 30,
        height: 30,
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        color: Color::Rgb,
        decode: Decode::Auto,
    };
    let tensor = |bytes: &[u8]| crate::preprocess::tensor(bytes, &options, u64::MAX);
    // The last chunk has twelve bytes. What it has to be is asked before its checksum, as `png` does.
    for cut in 5..40 {
        let answer = tensor(&bytes[..bytes.len() - cut]).map(|_| ());
        assert!(matches!(answer, Err(Error::Truncated(_))), "{cut} bytes are missing: {answer:?}");
    }
    assert!(tensor(&bytes[..bytes.len() - 4]).is_ok(), "its pixels are all there, and all checked");
}

#[test]
fn data_must_end_where_the_last_row_does() {
    let (_, bytes) = small();
    let (begin, data) = parts(&bytes);
    let end = chunk_of(b"IEND", b"");
    let with = |data: &[u8]| [begin, &chunk_of(b"IDAT", data), &end].concat();
    assert!(decode(&with(data)).is_some());
    // Its checksum is not compared, but has to be there.
    let (inflated, checksum) = data.split_at(data.len() - 4);
    assert!(decode(&with(&[inflated, b"none"].concat())).is_some());
    for missing in 1..=4 {
        assert!(decode(&with(&data[..data.len() - missing])).is_none(), "{missing} bytes of the checksum");
    }
    assert!(decode(&with(&[inflated, checksum, b"."].concat())).is_none(), "a byte more");
    // In stored blocks, rows of a taller image, and a last block that does not come.
    let (pixels, how) = (picture(60, 51, 3), (CompressionType::Uncompressed, FilterType::NoFilter));
    let taller = encode(&pixels, (60, 51), ExtendedColorType::Rgb8, how);
    let stored = parts(&taller).1;
    assert!(decode(&with(stored)).is_none(), "a row more");
    let mut unended = stored.to_vec();
    unended[2] &= !1;
    assert!(
        decode(&[parts(&taller).0, &chunk_of(b"IDAT", &unended), &end].concat()).is_none(),
        "no last block"
    );
}

#[test]
fn flipped_bits_do_no_harm() {
    let pixels = picture(60, 50, 4);
    let bytes =
        encode(&pixels, (60, 50), ExtendedColorType::Rgba8, (CompressionType::Fast, FilterType::Adaptive));
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        // Checksums tell.
        assert!(decode(&flipped).is_none(), "{at}");
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
