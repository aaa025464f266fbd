//! The guest's pure code, compiled natively.

use std::io::Cursor;

use image::ImageDecoder as _;
use image::codecs::png::PngDecoder;
use preprocess_guest::resize::{Color, Decode, Filter, Fit, Options};
use preprocess_guest::{encode, own_png, preprocess};

/// Small, so that time goes into many images and not into large ones.
const MAX_PIXELS: u64 = 1 << 20;

/// The guest answers or complains about any bytes, and never panics. In the sandbox a panic is a trap, which costs the
/// sender an image; here it is a finding.
///
/// The last four bytes are the options, what is before them is the image: so the files of `tests/corpus` are good seeds.
pub fn guest(data: &[u8]) {
    let (image, choice) = data.split_at(data.len().saturating_sub(4));
    let byte = |at: usize| choice.get(at).copied().unwrap_or(0);
    let options = Options {
        width: u32::from(byte(0)) + 1,
        height: u32::from(byte(1)) + 1,
        fit: [Fit::Stretch, Fit::Letterbox, Fit::Crop][usize::from(byte(2)) % 3],
        filter: [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3]
            [usize::from(byte(2) / 3) % 4],
        color: [Color::Rgb, Color::Bgr, Color::Gray][usize::from(byte(3)) % 3],
        decode: [Decode::Auto, Decode::Full][usize::from(byte(3) / 3) % 2],
    };
    same_as_elsewhere(image);
    let probed = preprocess::probe(image, MAX_PIXELS);
    if let Ok(info) = &probed {
        assert!(info.width > 0 && info.height > 0);
        assert!(u64::from(info.width) * u64::from(info.height) <= MAX_PIXELS);
    }
    let tensor = preprocess::tensor(image, &options, MAX_PIXELS);
    if let Ok(tensor) = &tensor {
        let channels = if options.color == Color::Gray { 1 } else { 3 };
        assert_eq!(tensor.image.pixels.len(), (options.width * options.height) as usize * channels);
        let placement = &tensor.placement;
        assert!(placement.x_min < placement.x_max && placement.y_min < placement.y_max, "{placement:?}");
        assert!(probed.is_ok(), "decoded without a header");
        let jpeg = encode::jpeg(&tensor.image).expect("pixels of a size that is allowed can be encoded");
        assert!(jpeg.starts_with(b"\xff\xd8"));
    }
}

/// What the PNG decoder of our own takes, once `png` has read the header as it does in the guest, `png` takes too, and every
/// byte of its pixels is the same. Neither compares checksums of chunks while it is fuzzed, which few inputs would pass.
fn same_as_elsewhere(bytes: &[u8]) {
    let Ok(decoder) = PngDecoder::new(Cursor::new(bytes)) else { return };
    let Some((size, pixels)) = own_png(bytes, MAX_PIXELS as usize) else { return };
    let (width, height) = decoder.dimensions();
    assert_eq!((width as usize, height as usize), size);
    let mut others = vec![0; pixels.len()];
    assert_eq!(decoder.total_bytes(), others.len() as u64);
    if let Err(error) = decoder.read_image(&mut others) {
        panic!("it is decoded by ours alone, not by `png`: {error}");
    }
    assert!(others == pixels, "other pixels than those of `png`");
}
