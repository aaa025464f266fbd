//! What the sandbox costs, and what a server without one would do: `cargo bench -p sandbox --bench preprocess`, with
//! `RUSTFLAGS="-C target-cpu=native"` for baselines at their best.
//!
//! For each image, a 300x300 bilinear tensor is made in turn by
//! 1. the sandbox: its whole call, a fresh instance each time;
//! 2. the guest's own code, compiled for this machine: the same bytes, which is asserted;
//! 3. the fastest pipeline of native Rust without a sandbox: `image` with zune-jpeg, all pixels, then
//!    `fast_image_resize` with the widest vectors there are.
//!
//! One after the other, so that a machine that runs faster and slower by the minute is the same for all three; the
//! ratios are of medians. `BENCH_SECONDS` is the time for each image (default 10).

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::imageops;
use image::{ImageFormat, RgbImage};
use preprocess_guest::preprocess;
use preprocess_guest::resize as guest;
use sandbox::{Color, Decode, Filter, Fit, Resize, Sandbox, SandboxConfig};

const SIDE: u32 = 300;

fn main() {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10.0);
    let time = Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sandbox = Sandbox::new(SandboxConfig { workers: 1, ..SandboxConfig::default() }).unwrap();
    println!(
        "| image | bytes | sandbox p50, p99 ms | own code native | image + zune + AVX2 | / own | / image |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, bytes) in images() {
        let resize = Resize {
            width: SIDE,
            height: SIDE,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            color: Color::Rgb,
            decode: Decode::Auto,
        };
        let ours = || runtime.block_on(sandbox.tensor(bytes.clone(), resize, None)).unwrap().pixels;
        let twin = || own_code(&bytes);
        let theirs = || without_sandbox(&bytes);
        assert_eq!(ours(), twin(), "{name}: the sandbox and its native twin give the same bytes");
        theirs();

        let mut times: [Vec<Duration>; 3] = Default::default();
        let started = Instant::now();
        while started.elapsed() < time || times[0].len() < 20 {
            times[0].push(timed(ours));
            times[1].push(timed(twin));
            times[2].push(timed(theirs));
        }
        let [ours, twin, theirs] = times.map(|mut times| {
            times.sort_unstable();
            (quantile(&times, 0.5), quantile(&times, 0.99))
        });
        println!(
            "| {name} | {} | {:.2}, {:.2} | {:.2}, {:.2} | {:.2}, {:.2} | {:.2} | {:.2} |",
            bytes.len(),
            ours.0,
            ours.1,
            twin.0,
            twin.1,
            theirs.0,
            theirs.1,
            ours.0 / twin.0,
            ours.0 / theirs.0
        );
    }
}

fn timed(work: impl Fn() -> Vec<u8>) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

/// In milliseconds.
fn quantile(sorted: &[Duration], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at).round() as usize].as_secs_f64() * 1e3
}

fn own_code(bytes: &[u8]) -> Vec<u8> {
    let options = guest::Options {
        width: SIDE,
        height: SIDE,
        fit: guest::Fit::Stretch,
        filter: guest::Filter::Bilinear,
        color: guest::Color::Rgb,
        decode: guest::Decode::Auto,
    };
    preprocess::probe(bytes, 50_000_000).unwrap();
    preprocess::tensor(bytes, &options, 50_000_000).unwrap().image.pixels
}

fn without_sandbox(bytes: &[u8]) -> Vec<u8> {
    let image = image::load_from_memory(bytes).unwrap().into_rgb8();
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3).unwrap();
    let mut target = Image::new(SIDE, SIDE, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options).unwrap();
    target.into_vec()
}

/// The sample photo as it is, and enlarged: as a JPEG of 12 megapixels without and with noise, as a PNG of 2.
fn images() -> Vec<(&'static str, Bytes)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/photos/double_decker_bus.jpg");
    let photo: Bytes = std::fs::read(path).unwrap().into();
    let decoded = image::load_from_memory(&photo).unwrap().into_rgb8();
    let enlarge = |width, height| imageops::resize(&decoded, width, height, imageops::FilterType::CatmullRom);
    let large = enlarge(4000, 3000);
    let mut noisy = large.clone();
    add_noise(&mut noisy);
    let mut png = Cursor::new(Vec::new());
    enlarge(1630, 1233).write_to(&mut png, ImageFormat::Png).unwrap();
    vec![
        ("sample photo, 546x413 JPEG", photo),
        ("enlarged, 4000x3000 JPEG", jpeg(&large)),
        ("enlarged with noise, 4000x3000 JPEG", jpeg(&noisy)),
        ("enlarged, 1630x1233 PNG", png.into_inner().into()),
    ]
}

fn jpeg(image: &RgbImage) -> Bytes {
    let mut bytes = Vec::new();
    // With 4:2:0 chroma, as cameras write it.
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder.encode(image, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes.into()
}

/// Of a standard deviation of 7 levels: the sum of twelve uniform numbers is nearly normal.
fn add_noise(image: &mut RgbImage) {
    let mut state = 1_u64;
    for byte in image.iter_mut() {
        let mut sum = 0;
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (0..4).map(|at| (state >> (16 + 8 * at)) as u8).map(i32::from).sum::<i32>();
        }
        // Twelve bytes have a mean of 1530 and a deviation of 256.
        *byte = (i32::from(*byte) + (sum - 1530) * 7 / 256).clamp(0, 255) as u8;
    }
}
