//! The guest's pure code, compiled natively.

use preprocess_guest::resize::{Color, Decode, Filter, Fit, Options};
use preprocess_guest::{encode, preprocess};

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
