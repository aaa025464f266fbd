//! Pixels, UINT8 `[n,h,w,3]`, become what a vision model takes, in the one write into the batch's tensor.

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
    datatype: PixelType,
    /// What each of the 256 values becomes, by channel: exactly `(value - mean) * scale`, computed once.
    table: [[f32; 256]; 3],
}

impl PixelConversion {
    /// A conversion with a mean and a scale for each channel (red, green, blue). [`PixelType::Uint8`] uses neither.
    pub fn new(layout: Layout, datatype: PixelType, mean: [f32; 3], scale: [f32; 3]) -> Self {
        let table = std::array::from_fn(|channel| {
            std::array::from_fn(|value| (value as f32 - mean[channel]) * scale[channel])
        });
        Self { layout, datatype, table }
    }

    /// Where the channels stand in the model's tensor.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Writes `pixels` (whole images of `image_pixels` pixels, 3 bytes each) as the model's rows into `out`.
    ///
    /// `out` must have the rows' exact size and, for a float type, its alignment.
    pub(crate) fn write(&self, pixels: &[u8], image_pixels: usize, out: &mut [u8]) {
        match self.datatype {
            PixelType::Uint8 if self.layout == Layout::Nhwc => out.copy_from_slice(pixels),
            PixelType::Uint8 => planar(pixels, image_pixels, out, |_, value| value),
            PixelType::Fp32 => {
                self.floats(pixels, image_pixels, bytemuck::cast_slice_mut(out), |value| value)
            }
            PixelType::Fp16 => {
                self.floats(pixels, image_pixels, bytemuck::cast_slice_mut(out), f16::from_f32)
            }
        }
    }

    fn floats<T>(&self, pixels: &[u8], image_pixels: usize, out: &mut [T], round: impl Fn(f32) -> T) {
        match self.layout {
            Layout::Nchw => planar(pixels, image_pixels, out, |channel, value| {
                round(self.table[channel][usize::from(value)])
            }),
            Layout::Nhwc => {
                let [red, green, blue] = &self.table;
                for (pixel, out) in pixels.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<3>().0) {
                    let [r, g, b] = pixel.map(usize::from);
                    *out = [round(red[r]), round(green[g]), round(blue[b])];
                }
            }
        }
    }
}

/// Takes interleaved images apart into planes.
fn planar<T>(pixels: &[u8], image_pixels: usize, out: &mut [T], convert: impl Fn(usize, u8) -> T) {
    let images = pixels.chunks_exact(3 * image_pixels);
    for (image, planes) in images.zip(out.chunks_exact_mut(3 * image_pixels)) {
        let (red, rest) = planes.split_at_mut(image_pixels);
        let (green, blue) = rest.split_at_mut(image_pixels);
        let planes = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((r, g), b)) in image.as_chunks::<3>().0.iter().zip(planes) {
            *r = convert(0, pixel[0]);
            *g = convert(1, pixel[1]);
            *b = convert(2, pixel[2]);
        }
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
}
