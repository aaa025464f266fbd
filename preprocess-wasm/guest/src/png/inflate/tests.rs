//! Against zlib's deflate in all its ways, whole and damaged, in pieces of any size.
#![allow(clippy::unwrap_used)]

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::*;

/// As chunks of a PNG of `piece` bytes each.
fn chunks(deflated: &[u8], piece: usize) -> Vec<u8> {
    let mut chunks = Vec::new();
    for data in deflated.chunks(piece) {
        let named = [b"IDAT", data].concat();
        chunks.extend((data.len() as u32).to_be_bytes());
        chunks.extend(&named);
        chunks.extend(crc32fast::hash(&named).to_be_bytes());
    }
    chunks.extend(b"\0\0\0\0IEND\xae\x42\x60\x82");
    chunks
}

/// All that comes out, through a buffer that has room for `room` bytes at once besides the window.
fn inflate(chunks: &[u8], room: usize, level: Level) -> Option<Vec<u8>> {
    let mut inflate = Inflate::new(Data { chunks, current: &[] })?;
    let mut buffer = vec![0; WINDOW + room + MARGIN];
    let mut inflated = Vec::new();
    let mut at = 0;
    while !inflate.is_done() {
        let to = inflate.fill(level, &mut buffer, at)?;
        inflated.extend(&buffer[at..to]);
        let keep = to.saturating_sub(WINDOW);
        buffer.copy_within(keep..to, 0);
        at = to - keep;
    }
    Some(inflated)
}

fn deflate(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    // In parts, of which each ends a block.
    for part in data.chunks(40_000) {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

fn noise(count: usize, bits: u32) -> Vec<u8> {
    let mut state = 5_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> (32 - bits)) as u8
    };
    (0..count).map(next).collect()
}

/// Data that make matches of all distances and lengths, long codes, and none of it.
fn samples() -> Vec<Vec<u8>> {
    let mut samples = vec![Vec::new(), vec![7], noise(100_000, 8), noise(100_000, 3), vec![9; 200_000]];
    for period in (1..40).chain([255, 256, 4000, 32_768]) {
        let part = noise(period, 8);
        let mut sample = noise(500, 8);
        for repeat in 0..(3000 / period).max(3) {
            sample.extend(&part);
            if repeat % 7 == 6 {
                sample.extend(noise(repeat, 8));
            }
        }
        samples.push(sample);
    }
    // Bytes as frequent as the numbers of Fibonacci have the longest codes there are.
    let (mut few, mut many) = (1, 1);
    let mut sample = Vec::new();
    for byte in 0..20 {
        sample.extend(vec![byte * 11; few]);
        (few, many) = (many, few + many);
    }
    let places = noise(sample.len(), 8);
    for at in 0..sample.len() {
        sample.swap(at, (at * 7919 + usize::from(places[at]) * 131) % places.len());
    }
    samples.push(sample);
    samples
}

#[test]
fn what_zlib_deflates_comes_back_whatever_its_pieces() {
    for sample in samples() {
        for level in [0, 1, 3, 6, 9] {
            let deflated = deflate(&sample, level);
            for (piece, room) in [(usize::MAX, 64 << 10), (1000, 1), (13, 300), (1, 5000)] {
                let chunks = chunks(&deflated, piece.min(deflated.len()));
                for simd in [Level::new(), Level::fallback()] {
                    let inflated = inflate(&chunks, room, simd);
                    assert!(inflated.as_ref() == Some(&sample), "{} bytes, {level}, {piece}", sample.len());
                }
            }
        }
    }
}

#[test]
fn codes_of_every_length_are_known() {
    let sample = samples().pop().unwrap();
    let lengths = |level| {
        let deflated = deflate(&sample, level);
        inflate(&chunks(&deflated, 100), 1000, Level::new()).map(|inflated| inflated.len())
    };
    assert_eq!(lengths(9), Some(sample.len()));
    // That there are longer ones than are looked up at once is what this sample is for.
    let mut codes = Codes::<16>::new(|symbol| (symbol as u32) << 16);
    let of: Vec<u8> = (1..=14).chain([15, 15]).collect();
    codes.set(&of, false).unwrap();
    for (symbol, &length) in of.iter().enumerate() {
        // In the order of codes: all ones, but for the last bit of all but the last one.
        let code = (1_u64 << (length - 1)) - 1 + (u64::from(symbol == 15) << (length - 1));
        let entry = match codes.look_up(code) {
            0 => codes.look_up_long(code).unwrap(),
            entry => entry,
        };
        assert_eq!((entry >> 16, entry & 0xff), (symbol as u32, u32::from(length)));
    }
}

#[test]
fn codes_that_are_too_many_or_too_few_are_refused() {
    let set = |lengths: &[u8], is_sparse| {
        Codes::<512>::new(|symbol| symbol as u32).set(lengths, is_sparse).is_some()
    };
    assert!(set(&[1, 1], false) && set(&[2, 2, 1], false));
    assert!(!set(&[1, 1, 1], true) && !set(&[2, 2], true) && !set(&[2], true));
    assert!(set(&[0, 1], true) && set(&[0, 0], true));
    assert!(!set(&[0, 1], false) && !set(&[0, 0], false));
}

#[test]
fn damaged_data_do_no_harm_and_are_not_taken_otherwise_than_elsewhere() {
    let sample = [noise(400, 8), vec![3; 300], noise(900, 2)].concat();
    for level in [0, 1, 9] {
        let deflated = deflate(&sample, level);
        // Without the checksum, which is not looked at.
        for end in 0..deflated.len() - 4 {
            assert!(inflate(&chunks(&deflated[..end], 50), 100, Level::new()).is_none(), "{end}");
        }
        for at in 0..(deflated.len() - 4) * 8 {
            let mut flipped = deflated.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let Some(ours) = inflate(&chunks(&flipped, 50), 100, Level::new()) else { continue };
            let mut theirs = vec![0; 1 << 20];
            let mut decompressor = flate2::Decompress::new(true);
            // It may complain about the checksum, behind all that comes out.
            let _ = decompressor.decompress(&flipped, &mut theirs, flate2::FlushDecompress::Finish);
            theirs.truncate(decompressor.total_out() as usize);
            assert!(ours == theirs, "bit {at}");
        }
    }
}
