//! Pixels, UINT8 `[n,h,w,3]`, become what a vision model takes, in the one write into the batch's tensor.

use fearless_simd::{Level, dispatch};
use half::f16;

/// Order of a tensor's image dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Height, width, channel: interleaved.
    Nhwc,
    /// Channel, height, width: planar.
    Nchw,
}

/// Element types that pixels can become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelType {
    /// As they are.
    Uint8,
    /// `(value - mean) * scale` in half precision.
    Fp16,
    /// `(value - mean) * scale` in single precision.
    Fp32,
}

/// What happens to pixels on their way into the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelConversion {
    layout: Layout,
    values: Values,
}

/// What pixels' values become.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    Uint8,
    /// With mean and scale by channel.
    Fp32 {
        mean: [f32; 3],
        scale: [f32; 3],
    },
    /// What each of the 256 values becomes, by channel: rounding to half precision is slow.
    Fp16(Box<[[f16; 256]; 3]>),
}

impl PixelConversion {
    /// A conversion with a mean and a scale for each channel (red, green, blue). [`PixelType::Uint8`] uses neither.
    pub fn new(layout: Layout, datatype: PixelType, mean: [f32; 3], scale: [f32; 3]) -> Self {
        let values = match datatype {
            PixelType::Uint8 => Values::Uint8,
            PixelType::Fp32 => Values::Fp32 { mean, scale },
            PixelType::Fp16 => Values::Fp16(Box::new(std::array::from_fn(|channel| {
                std::array::from_fn(|value| f16::from_f32((value as f32 - mean[channel]) * scale[channel]))
            }))),
        };
        Self { layout, values }
    }

    /// Where the channels stand in the model's tensor.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Writes `pixels` (whole images of `image_pixels` pixels, 3 bytes each) as the model's rows into `out`.
    ///
    /// `out` must have the rows' exact size and, for a float type, its alignment.
    pub fn write(&self, pixels: &[u8], image_pixels: usize, out: &mut [u8]) {
        match (&self.values, self.layout) {
            (Values::Uint8, Layout::Nhwc) => out.copy_from_slice(pixels),
            (Values::Uint8, Layout::Nchw) => planar(pixels, image_pixels, out, [|value| value; 3]),
            (Values::Fp32 { mean, scale }, layout) => {
                let convert = std::array::from_fn(|channel| {
                    let (mean, scale) = (mean[channel], scale[channel]);
                    move |value: u8| (f32::from(value) - mean) * scale
                });
                write_as(layout, pixels, image_pixels, bytemuck::cast_slice_mut(out), convert);
            }
            (Values::Fp16(table), layout) => {
                let convert = table.each_ref().map(|values| move |value: u8| values[usize::from(value)]);
                write_as(layout, pixels, image_pixels, bytemuck::cast_slice_mut(out), convert);
            }
        }
    }
}

fn write_as<T, C: Fn(u8) -> T + Copy>(
    layout: Layout,
    pixels: &[u8],
    image_pixels: usize,
    out: &mut [T],
    convert: [C; 3],
) {
    match layout {
        Layout::Nchw => planar(pixels, image_pixels, out, convert),
        Layout::Nhwc => dispatch!(Level::new(), _ => convert_in_order(pixels, out, convert)),
    }
}

/// Takes interleaved images apart into planes.
///
/// This and [`convert_in_order`] are compiled for the widest vectors that the processor has: with those that every
/// processor of its kind has, they take six times as long (an image of 300x300 to f32 in planes: 18 µs against 107).
fn planar<T, C: Fn(u8) -> T + Copy>(pixels: &[u8], image_pixels: usize, out: &mut [T], convert: [C; 3]) {
    let level = Level::new();
    let images = pixels.chunks_exact(3 * image_pixels);
    for (image, planes) in images.zip(out.chunks_exact_mut(3 * image_pixels)) {
        dispatch!(level, _ => take_apart(image, planes, convert));
    }
}

// Inlined, so that it is compiled for the processor that was found; the conversions are values, not references, so that
// what they hold stays in registers.
#[inline(always)]
fn take_apart<T, C: Fn(u8) -> T + Copy>(image: &[u8], planes: &mut [T], [red, green, blue]: [C; 3]) {
    let (reds, rest) = planes.split_at_mut(planes.len() / 3);
    let (greens, blues) = rest.split_at_mut(rest.len() / 2);
    let planes = reds.iter_mut().zip(greens).zip(blues);
    for (&[r, g, b], ((to_red, to_green), to_blue)) in image.as_chunks::<3>().0.iter().zip(planes) {
        *to_red = red(r);
        *to_green = green(g);
        *to_blue = blue(b);
    }
}

/// Converts interleaved images as they are.
#[inline(always)]
fn convert_in_order<T, C: Fn(u8) -> T + Copy>(pixels: &[u8], out: &mut [T], convert: [C; 3]) {
    // Sixteen pixels fill whole vectors.
    const GROUP: usize = 48;
    let by_position: [C; GROUP] = std::array::from_fn(|at| convert[at % 3]);
    let (groups, rest) = pixels.as_chunks::<GROUP>();
    let (out_groups, out_rest) = out.as_chunks_mut::<GROUP>();
    for (group, out) in groups.iter().zip(out_groups) {
        for ((value, out), convert) in group.iter().zip(out).zip(&by_position) {
            *out = convert(*value);
        }
    }
    for ((value, out), convert) in rest.iter().zip(out_rest).zip(&by_position) {
        *out = convert(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
    const SCALE: [f32; 3] = [0.017_124_75, 0.017_507, 0.017_429];

    proptest! {
        #[test]
        fn every_value_lands_at_its_place(images in 1_usize..4, image_pixels in 1_usize..40, seed in any::<u8>()) {
            let pixels: Vec<u8> = (0..images * image_pixels * 3).map(|i| (i * 7 + usize::from(seed)) as u8).collect();
            let mut planar_u8 = vec![0; pixels.len()];
            PixelConversion::new(Layout::Nchw, PixelType::Uint8, [0.0; 3], [1.0; 3])
                .write(&pixels, image_pixels, &mut planar_u8);
            let mut planar_f32 = vec![0_f32; pixels.len()];
            PixelConversion::new(Layout::Nchw, PixelType::Fp32, MEAN, SCALE)
                .write(&pixels, image_pixels, bytemuck::cast_slice_mut(&mut planar_f32));
            let mut interleaved_f32 = vec![0_f32; pixels.len()];
            PixelConversion::new(Layout::Nhwc, PixelType::Fp32, MEAN, SCALE)
                .write(&pixels, image_pixels, bytemuck::cast_slice_mut(&mut interleaved_f32));
            let mut planar_f16 = vec![f16::ZERO; pixels.len()];
            PixelConversion::new(Layout::Nchw, PixelType::Fp16, MEAN, SCALE)
                .write(&pixels, image_pixels, bytemuck::cast_slice_mut(&mut planar_f16));
            for (at, &value) in pixels.iter().enumerate() {
                let (image, pixel, channel) = (at / 3 / image_pixels, at / 3 % image_pixels, at % 3);
                let plane_at = (image * 3 + channel) * image_pixels + pixel;
                let expected = (f32::from(value) - MEAN[channel]) * SCALE[channel];
                prop_assert_eq!(planar_u8[plane_at], value);
                prop_assert_eq!(planar_f32[plane_at], expected);
                prop_assert_eq!(interleaved_f32[at], expected);
                prop_assert_eq!(planar_f16[plane_at], f16::from_f32(expected));
            }
        }
    }

    /// Prints what a conversion of a 300x300 image costs: `cargo test --release -p model-serving -- --ignored
    /// --nocapture the_cost_of_a_conversion`.
    #[test]
    #[ignore = "measures; it checks nothing"]
    #[allow(clippy::print_stdout)]
    fn the_cost_of_a_conversion() {
        let pixels: Vec<u8> = (0..270_000).map(|i| (i * 31 + i / 7) as u8).collect();
        for layout in [Layout::Nhwc, Layout::Nchw] {
            for (datatype, bytes) in [(PixelType::Uint8, 1), (PixelType::Fp16, 2), (PixelType::Fp32, 4)] {
                let conversion = PixelConversion::new(layout, datatype, MEAN, SCALE);
                let mut out = vec![0_u64; (pixels.len() * bytes).div_ceil(8)];
                let out = &mut bytemuck::cast_slice_mut(&mut out)[..pixels.len() * bytes];
                let run = |_| {
                    let started = std::time::Instant::now();
                    conversion.write(std::hint::black_box(&pixels), 90_000, std::hint::black_box(&mut *out));
                    started.elapsed()
                };
                let best = (0..200).map(run).min().unwrap_or_default();
                println!("{layout:?} {datatype:?}: {best:?} for an image of 300x300");
            }
        }
    }
}
