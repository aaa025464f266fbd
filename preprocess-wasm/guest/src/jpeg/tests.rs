//! Against `jpeg-decoder`, on files of every kind that is decoded here, whole and damaged.
#![allow(clippy::unwrap_used)]

mod writer;

use jpeg_decoder::{ColorTransform, Decoder};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use writer::{Random, Writer};

/// The rows of each component, at one size, without what fills the last MCU.
fn planes(bytes: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    planes_of(bytes, [size; 3])
}

/// The same, of each component at its own of these sizes.
fn planes_of(bytes: &[u8], sizes: [usize; 3]) -> Option<Vec<Vec<u8>>> {
    let jpeg = Baseline::open(bytes)?;
    let components = jpeg.components();
    let (width, height) = jpeg.size();
    let scaled = |pixels: usize, size: usize, sampling: f64| {
        (pixels as f64 * sampling * size as f64 / 8.0).ceil() as usize
    };
    let mut planes = vec![Vec::new(); components.len()];
    let mut rows = vec![0; components.len()];
    jpeg.decode(&sizes[..components.len()], |component, row| {
        let size = sizes[component];
        let width = scaled(width, size, components[component].horizontal);
        assert!(row.len() >= width + ROW_PADDING);
        if rows[component] < scaled(height, size, components[component].vertical) {
            planes[component].extend(&row[..width]);
            rows[component] += 1;
        }
    })?;
    Some(planes)
}

/// By `jpeg-decoder`, the components as they are, brought to one size.
fn theirs(bytes: &[u8], size: usize) -> Option<(usize, Vec<Vec<u8>>)> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_color_transform(ColorTransform::RGB);
    decoder.read_info().ok()?;
    let info = decoder.info()?;
    let count = info.pixel_format.pixel_bytes();
    let side = |pixels: u16| (usize::from(pixels) * size).div_ceil(8) as u16;
    let (mut width, _) = (info.width, info.height);
    if size < 8 {
        (width, _) = decoder.scale(side(info.width), side(info.height)).ok()?;
    }
    let pixels = decoder.decode().ok()?;
    let plane = |at: usize| pixels.iter().skip(at).step_by(count).copied().collect();
    Some((usize::from(width), (0..count).map(plane).collect()))
}

/// The largest difference of any sample that `jpeg-decoder` does not interpolate.
fn worst(bytes: &[u8], size: usize) -> u8 {
    let ours = planes(bytes, size).unwrap_or_else(|| panic!("it is decoded here, at {size}"));
    let (width, theirs) = theirs(bytes, size).unwrap();
    let components = Baseline::open(bytes).unwrap().components();
    let mut worst = 0;
    for ((ours, theirs), sampling) in ours.iter().zip(&theirs).zip(components) {
        let (across, down) = ((1.0 / sampling.horizontal) as usize, (1.0 / sampling.vertical) as usize);
        if matches!((across, down), (2, 1) | (1, 2) | (2, 2)) {
            continue;
        }
        let own_width = width.div_ceil(across);
        for (at, sample) in theirs.iter().enumerate() {
            let (x, y) = (at % width / across, at / width / down);
            worst = worst.max(sample.abs_diff(ours[y * own_width + x]));
        }
    }
    worst
}

const SAMPLINGS: [&[(u8, u8)]; 11] = [
    &[(1, 1)],
    &[(2, 3)],
    &[(1, 1), (1, 1), (1, 1)],
    &[(2, 1), (1, 1), (1, 1)],
    &[(1, 2), (1, 1), (1, 1)],
    &[(2, 2), (1, 1), (1, 1)],
    &[(4, 1), (1, 1), (1, 1)],
    &[(1, 4), (1, 1), (1, 1)],
    &[(1, 1), (4, 1), (2, 1)],
    &[(1, 1), (1, 1), (2, 4)],
    &[(2, 1), (2, 2), (2, 1)],
];

#[test]
fn every_sampling_size_and_restart_interval_is_decoded_as_elsewhere() {
    let mut seed = 0;
    for sampling in SAMPLINGS {
        for size in [(1, 1), (8, 8), (9, 7), (33, 17), (64, 3), (2, 70), (101, 99)] {
            for restart in [0, 1, 3] {
                seed += 1;
                let file = Writer { size, sampling: sampling.to_vec(), restart, step: 3, seed };
                let bytes = file.write();
                for (scaled, tolerance) in [(8, 1), (4, 2), (2, 2), (1, 2)] {
                    // Of so small an image, theirs would be made at an even smaller scale.
                    if scaled < 8 && (size.0 <= 8 || size.1 <= 8) {
                        continue;
                    }
                    let worst = worst(&bytes, scaled);
                    assert!(worst <= tolerance, "{sampling:?} {size:?} {restart} at {scaled}: {worst}");
                }
            }
        }
    }
}

#[test]
fn each_component_is_decoded_at_its_own_size_as_if_all_had_it() {
    for (seed, step) in [(1, 1), (2, 3), (3, 20)] {
        let sampling = vec![(2, 2), (1, 1), (1, 1)];
        let bytes = Writer { size: (101, 99), sampling, restart: 0, step, seed }.write();
        for sizes in [[4, 8, 2], [2, 8, 4], [1, 2, 8], [8, 4, 1], [1, 4, 2]] {
            let planes = planes_of(&bytes, sizes).unwrap();
            for (component, size) in sizes.into_iter().enumerate() {
                let alone = &planes_of(&bytes, [size; 3]).unwrap()[component];
                assert!(planes[component] == *alone, "component {component} of {sizes:?}");
            }
        }
    }
}

#[test]
fn samplings_of_no_whole_ratio_are_left_to_others() {
    let sampling = vec![(3, 1), (2, 1), (1, 1)];
    let bytes = Writer { size: (30, 20), sampling, restart: 0, step: 3, seed: 1 }.write();
    assert!(Baseline::open(&bytes).is_none());
}

/// A picture with edges, in which nothing is even.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let pixel = |at: u32| {
        let (x, y) = (at % width, at / width);
        let inside = (x * x + y * y) % 1500 < 700;
        [(x * 5 + y) as u8, if inside { 220 } else { 40 }, (y * 3) as u8]
    };
    (0..width * height).flat_map(pixel).collect()
}

fn encoded(quality: u8, sampling: SamplingFactor, restart: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(sampling);
    if restart > 0 {
        encoder.set_restart_interval(restart);
    }
    encoder.encode(&picture(75, 61), 75, 61, ColorType::Rgb).unwrap();
    bytes
}

#[test]
fn every_quality_is_decoded_as_elsewhere() {
    for quality in 1..=100 {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
            let worst = worst(&encoded(quality, sampling, u16::from(quality % 5)), 8);
            assert!(worst <= 2, "quality {quality}: {worst}");
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_2] {
        for restart in [0, 4] {
            let bytes = encoded(60, sampling, restart);
            assert!(planes(&bytes, 8).is_some());
            for end in 0..bytes.len() {
                for size in [8, 1] {
                    assert!(planes(&bytes[..end], size).is_none(), "{end} of {}", bytes.len());
                }
            }
        }
    }
}

#[test]
fn flipped_bits_do_no_harm_and_what_is_accepted_is_what_others_see() {
    let mut random = Random(7);
    let (mut accepted, mut equal, mut alone) = (0, 0, 0);
    for round in 0..4000_u32 {
        let sampling = if round % 2 == 0 { SamplingFactor::F_1_1 } else { SamplingFactor::F_2_2 };
        let mut bytes = encoded(30 + (round % 60) as u8, sampling, (round % 4) as u16);
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len() as u32) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        for size in [4, 2, 1] {
            planes(&bytes, size);
        }
        let Some(ours) = planes(&bytes, 8) else { continue };
        // Hardly ever does the other one see no restart marker where this one does.
        let Some((_, theirs)) = theirs(&bytes, 8) else {
            alone += 1;
            continue;
        };
        accepted += 1;
        // Luma has all samples in both. Numbers that no image has saturate in one and overflow in the other.
        let is_near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 3;
        equal += u32::from(ours[0].len() == theirs[0].len() && ours[0].iter().zip(&theirs[0]).all(is_near));
    }
    assert!(accepted > 500 && equal * 10 > accepted * 9, "{accepted} were accepted, {equal} of them equal");
    assert!(alone * 100 < accepted, "{alone} were accepted here alone");
}
