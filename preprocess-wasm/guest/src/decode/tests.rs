#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Write};

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::preprocess;
use crate::resize::{Color, Decode, Filter, Fit};

const LIMIT: u64 = 1_000_000;

const OPTIONS: Options = Options {
    width: 30,
    height: 20,
    fit: Fit::Stretch,
    filter: Filter::Bilinear,
    color: Color::Rgb,
    decode: Decode::Auto,
};

/// Smooth in every channel, so that lossy formats stay close to it.
fn gradient() -> DynamicImage {
    let pixel = |x: u32, y: u32| image::Rgb([(x * 4) as u8, (y * 5) as u8, ((x + y) * 2) as u8]);
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(48, 40, pixel))
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(pixels: &[u8], color: ColorType, progressive: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.set_progressive(progressive);
    encoder.encode(pixels, 48, 40, color).unwrap();
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> (Header, Rgb) {
    let source = Source::open(bytes, LIMIT).unwrap();
    (source.header().clone(), source.decode().unwrap())
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn lossless_formats_give_back_every_byte() {
    let image = gradient();
    let cases = [
        (ImageFormat::Png, "PNG"),
        (ImageFormat::WebP, "WEBP"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Tiff, "TIFF"),
    ];
    for (format, name) in cases {
        let (header, decoded) = decode(&encode(&image, format));
        assert_eq!((header.width, header.height), (48, 40));
        assert_eq!((header.format.name(), header.mode), (name, "RGB"));
        assert_eq!(decoded.pixels, image.as_bytes(), "{name}");
    }
}

#[test]
fn gif_gives_its_first_frame() {
    let red = RgbaImage::from_pixel(6, 5, Rgba([255, 0, 0, 255]));
    let blue = RgbaImage::from_pixel(6, 5, Rgba([0, 0, 255, 255]));
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    encoder.encode_frames([red, blue].map(image::Frame::new)).unwrap();
    drop(encoder);
    let (header, decoded) = decode(&bytes);
    assert_eq!((header.format.name(), header.mode), ("GIF", "P"));
    assert_eq!(decoded.pixels, [255, 0, 0].repeat(30));
}

#[test]
fn jpeg_baseline_and_progressive_decode_alike() {
    let image = gradient();
    let (header, baseline) = decode(&jpeg(image.as_bytes(), ColorType::Rgb, false));
    assert_eq!((header.format.name(), header.mode), ("JPEG", "RGB"));
    assert!(mean_difference(&baseline.pixels, image.as_bytes()) < 2.0);
    let (_, progressive) = decode(&jpeg(image.as_bytes(), ColorType::Rgb, true));
    assert!(mean_difference(&progressive.pixels, &baseline.pixels) < 0.5);
}

#[test]
fn jpeg_in_grey_is_expanded() {
    let grey = gradient().into_luma8();
    let (header, decoded) = decode(&jpeg(grey.as_raw(), ColorType::Luma, false));
    assert_eq!(header.mode, "L");
    assert!(decoded.pixels.chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]));
    let first: Vec<u8> = decoded.pixels.iter().step_by(3).copied().collect();
    assert!(mean_difference(&first, grey.as_raw()) < 2.0);
}

#[test]
fn jpeg_in_cmyk_and_ycck_become_rgb() {
    // The encoder stores CMYK inverted and marks it as Adobe's programs do.
    let ink = [0, 200, 100, 50].repeat(48 * 40);
    let expected = [205, 44, 125].repeat(48 * 40);
    for color in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let (header, decoded) = decode(&jpeg(&ink, color, false));
        assert_eq!(header.mode, "CMYK");
        assert!(mean_difference(&decoded.pixels, &expected) < 3.0, "{color:?}: {:?}", &decoded.pixels[..3]);
    }
}

#[test]
fn sixteen_bits_become_eight_and_transparency_becomes_white() {
    let wide = image::ImageBuffer::from_pixel(3, 2, image::Rgba([0x1234_u16, 0x8000, 0xffff, 0xffff]));
    let (header, decoded) = decode(&encode(&DynamicImage::ImageRgba16(wide), ImageFormat::Png));
    assert_eq!(header.mode, "RGBA");
    assert_eq!(decoded.pixels, [0x12, 0x80, 0xff].repeat(6));

    let grey = image::ImageBuffer::from_pixel(3, 2, image::Luma([0x7fff_u16]));
    let (header, decoded) = decode(&encode(&DynamicImage::ImageLuma16(grey), ImageFormat::Png));
    assert_eq!(header.mode, "I;16");
    assert_eq!(decoded.pixels, [0x7f; 18]);

    let clear = RgbaImage::from_pixel(3, 2, Rgba([1, 2, 3, 0]));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let (header, decoded) = decode(&encode(&DynamicImage::ImageRgba8(clear.clone()), format));
        assert_eq!(header.mode, "RGBA");
        assert_eq!(decoded.pixels, [255; 18], "{format:?}");
    }
}

/// A PNG of any kind the standard knows, from its raw (filtered, maybe interlaced) scan lines.
fn png(
    size: (u32, u32),
    depth: u8,
    color: u8,
    interlaced: bool,
    chunks: &[(&[u8; 4], &[u8])],
    lines: &[u8],
) -> Vec<u8> {
    fn chunk(bytes: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
        bytes.extend((data.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend(name);
        bytes.extend(data);
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[start..]);
        bytes.extend(crc.sum().to_be_bytes());
    }
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [size.0.to_be_bytes(), size.1.to_be_bytes()].concat();
    header.extend([depth, color, 0, 0, u8::from(interlaced)]);
    chunk(&mut bytes, b"IHDR", &header);
    for (name, data) in chunks {
        chunk(&mut bytes, name, data);
    }
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(lines).unwrap();
    chunk(&mut bytes, b"IDAT", &zlib.finish().unwrap());
    chunk(&mut bytes, b"IEND", &[]);
    bytes
}

#[test]
fn png_palette_with_transparency() {
    // Two bits: red, green (clear), blue (half clear), black; one line of four pixels, 0 1 2 3.
    let palette: &[u8] = &[255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0];
    let bytes = png((4, 1), 2, 3, false, &[(b"PLTE", palette), (b"tRNS", &[255, 0, 128])], &[0, 0b0001_1011]);
    let (header, decoded) = decode(&bytes);
    assert_eq!(header.mode, "P");
    assert_eq!(decoded.pixels, [255, 0, 0, 255, 255, 255, 127, 127, 255, 0, 0, 0]);
}

#[test]
fn png_of_one_bit_and_of_grey_with_alpha() {
    let (header, decoded) = decode(&png((8, 1), 1, 0, false, &[], &[0, 0b1010_0001]));
    assert_eq!(header.mode, "1");
    let bits: Vec<u8> = decoded.pixels.iter().step_by(3).copied().collect();
    assert_eq!(bits, [255, 0, 255, 0, 0, 0, 0, 255]);
    let (header, decoded) = decode(&png((2, 1), 8, 4, false, &[], &[0, 7, 255, 7, 0]));
    assert_eq!(header.mode, "LA");
    assert_eq!(decoded.pixels, [7, 7, 7, 255, 255, 255]);
}

#[test]
fn png_interlaced() {
    // Adam7 of a 5x5 grey image whose pixel at (x, y) is 10 * y + x.
    let passes =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let mut lines = Vec::new();
    for (x0, y0, dx, dy) in passes {
        for y in (y0..5).step_by(dy) {
            let line: Vec<u8> = (x0..5).step_by(dx).map(|x| (10 * y + x) as u8).collect();
            if !line.is_empty() {
                lines.push(0);
                lines.extend(line);
            }
        }
    }
    let (_, decoded) = decode(&png((5, 5), 8, 0, true, &[], &lines));
    let grey: Vec<u8> = decoded.pixels.iter().step_by(3).copied().collect();
    let expected: Vec<u8> = (0..5).flat_map(|y| (0..5).map(move |x| 10 * y + x)).collect();
    assert_eq!(grey, expected);
}

/// The EXIF block that says nothing but the orientation.
pub(super) fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    tiff
}

#[test]
fn exif_orientation_is_read_from_jpeg_and_png() {
    let plain = jpeg(gradient().as_bytes(), ColorType::Rgb, false);
    for orientation in 1..=8 {
        let block = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
        let mut turned = plain[..2].to_vec();
        turned.extend([0xff, 0xe1]);
        turned.extend((block.len() as u16 + 2).to_be_bytes());
        turned.extend(&block);
        turned.extend(&plain[2..]);
        let png = png((1, 2), 8, 0, false, &[(b"eXIf", &exif(orientation))], &[0, 1, 0, 2]);
        for (bytes, stored) in [(turned, (48, 40)), (png, (1, 2))] {
            let header = Source::open(&bytes, LIMIT).unwrap().header().clone();
            assert_eq!(header.orientation, Orientation::from_exif(orientation).unwrap());
            let upright = if orientation < 5 { stored } else { (stored.1, stored.0) };
            assert_eq!(header.upright(), upright);
        }
    }
}

#[test]
fn a_file_cut_short_is_never_an_image() {
    let noisy = DynamicImage::ImageRgb8(image::RgbImage::from_fn(48, 40, |x, y| {
        let hash = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
        image::Rgb([(hash >> 8) as u8, (hash >> 16) as u8, (hash >> 24) as u8])
    }));
    let mut files: Vec<(String, Vec<u8>)> =
        [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
            .into_iter()
            .map(|format| (format!("{format:?}"), encode(&noisy, format)))
            .collect();
    files.push(("baseline".to_owned(), jpeg(noisy.as_bytes(), ColorType::Rgb, false)));
    files.push(("progressive".to_owned(), jpeg(noisy.as_bytes(), ColorType::Rgb, true)));
    for (name, bytes) in files {
        for percent in [5, 20, 50, 80, 95] {
            let cut = &bytes[..bytes.len() * percent / 100];
            // As a whole, and on its way into a tensor, which baseline JPEG and PNG take by code of their own.
            let whole = Source::open(cut, LIMIT).and_then(Source::decode).map(|_| ());
            let tensor = preprocess::tensor(cut, &OPTIONS, LIMIT).map(|_| ());
            for result in [whole, tensor] {
                let error = result.expect_err(&format!("{name} at {percent} %"));
                assert!(matches!(error, Error::Truncated(_)), "{name} at {percent} %: {error}");
            }
        }
    }
}

#[test]
fn more_pixels_than_allowed_are_refused_from_the_header_alone() {
    let mut header = png((60_000, 60_000), 8, 2, false, &[], &[]);
    header.truncate(33);
    let error = Source::open(&header, LIMIT).err();
    assert_eq!(error, Some(Error::TooManyPixels { width: 60_000, height: 60_000 }));

    let photo = jpeg(gradient().as_bytes(), ColorType::Rgb, false);
    assert_eq!(Source::open(&photo, 48 * 40 - 1).err(), Some(Error::TooManyPixels { width: 48, height: 40 }));
    assert!(Source::open(&photo, 48 * 40).is_ok());

    let gif = b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0";
    assert!(matches!(Source::open(gif, LIMIT).err(), Some(Error::TooManyPixels { .. })));
}

#[test]
fn no_pixels_are_no_image() {
    for bytes in [&b"GIF89a\0\0\0\0\0\0\0;"[..], &png((0, 5), 8, 2, false, &[], &[])] {
        assert!(matches!(Source::open(bytes, LIMIT).err(), Some(Error::Corrupt(_))));
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let image = gradient();
    let mut files: Vec<Vec<u8>> =
        [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
            .into_iter()
            .map(|format| encode(&image, format))
            .collect();
    files.push(jpeg(image.as_bytes(), ColorType::Rgb, false));
    files.push(jpeg(image.as_bytes(), ColorType::Rgb, true));
    for file in files {
        // A fixed pseudo-random walk (Knuth's MMIX constants), so that a failure comes again.
        let mut state = 1_u64;
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut damaged = file.clone();
            let at = (state >> 33) as usize % damaged.len();
            damaged[at] ^= 1 << ((state >> 20) & 7);
            let _ = Source::open(&damaged, LIMIT).and_then(Source::decode);
        }
    }
}
