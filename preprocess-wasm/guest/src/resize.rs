//! Brings an image to the size that is asked for, and says where it lies there.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::{Orientation, swaps_sides};
use crate::error::Error;

/// The longest side a target may have, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// The grey of a letterbox's bars, as detectors of the YOLO family are trained with.
pub const BAR: u8 = 114;

/// Interleaved RGB rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// What an image is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Target width in pixels, 1..=[`MAX_SIDE`].
    pub width: u32,
    /// Target height in pixels, 1..=[`MAX_SIDE`].
    pub height: u32,
    /// What happens when the aspect ratios differ.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: Filter,
    /// What the bytes of a pixel are.
    pub color: Color,
    /// How much of the image is decoded.
    pub decode: Decode,
}

/// What the bytes of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One byte of luma.
    Gray,
}

/// How much of an image is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// As much as the target can show: never less than twice the target in each direction.
    Auto,
    /// Every pixel.
    Full,
}

/// What happens when the image's aspect ratio is not the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Width and height are scaled independently.
    Stretch,
    /// The whole image, centred, with grey bars beside it.
    Letterbox,
    /// The largest centred part of the target's aspect ratio.
    Crop,
}

/// Resampling filter. All but `Nearest` are antialiased when they shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Catmull-Rom: cubic convolution with a = -0.5, as Pillow's BICUBIC.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos3,
}

/// Where the upright image lies in the target, as fractions of the target's sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Left edge.
    pub x_min: f32,
    /// Top edge.
    pub y_min: f32,
    /// Right edge.
    pub x_max: f32,
    /// Bottom edge.
    pub y_max: f32,
}

impl Placement {
    const FULL: Self = Self { x_min: 0.0, y_min: 0.0, x_max: 1.0, y_max: 1.0 };
}

impl Options {
    /// Refuses sides that are zero or longer than [`MAX_SIDE`].
    pub fn validate(&self) -> Result<(), Error> {
        for (name, side) in [("width", self.width), ("height", self.height)] {
            if side == 0 || side > MAX_SIDE {
                return Err(Error::InvalidOptions(format!(
                    "the {name} is {side}, it must be 1 to {MAX_SIDE} pixels"
                )));
            }
        }
        Ok(())
    }
}

/// Resizes a stored image and turns it upright.
///
/// It is turned after it was resized, because then there is less of it: the filters are symmetric, so the order
/// makes no difference but for rounding.
pub fn resize(image: &Rgb, orientation: Orientation, options: &Options) -> Result<(Rgb, Placement), Error> {
    let target = Target::new((image.width, image.height), orientation, options);
    let pixels = target.resample(image, 1.0)?;
    Ok(target.finish(pixels))
}

/// What a stored image of a certain size becomes.
pub(crate) struct Target {
    plan: Plan,
    orientation: Orientation,
    options: Options,
    /// Size of the image as stored.
    stored: (u32, u32),
    /// Size of the part that is resampled, centred in the image as stored, in its pixels.
    pub(crate) visible: (f64, f64),
    /// What that part becomes, in target pixels, before it is turned upright.
    pub(crate) inner: (u32, u32),
}

impl Target {
    pub(crate) fn new(stored: (u32, u32), orientation: Orientation, options: &Options) -> Self {
        let size = (f64::from(stored.0), f64::from(stored.1));
        let is_turned = swaps_sides(orientation);
        let plan = Plan::new(if is_turned { (size.1, size.0) } else { size }, options);
        let (visible, inner) = if is_turned {
            ((plan.visible.1, plan.visible.0), (plan.inner.1, plan.inner.0))
        } else {
            (plan.visible, plan.inner)
        };
        Self { plan, orientation, options: *options, stored, visible, inner }
    }

    /// Resamples the stored image, of which `scale` is left in each direction. Its last pixels may be those of a whole block, and
    /// lie partly beyond it.
    pub(crate) fn resample(&self, image: &Rgb, scale: f64) -> Result<Vec<u8>, Error> {
        let from = |stored: u32, visible: f64| (f64::from(stored) - visible) / 2.0 * scale;
        let (left, top) = (from(self.stored.0, self.visible.0), from(self.stored.1, self.visible.1));
        let length = |image: u32, from: f64, visible: f64| (visible * scale).min(f64::from(image) - from);
        let width = length(image.width, left, self.visible.0);
        let height = length(image.height, top, self.visible.1);
        resample(image, self.inner, [left, top, width, height], self.options.filter)
    }

    /// Turns what was resampled upright, and puts it into its place.
    pub(crate) fn finish(&self, pixels: Vec<u8>) -> (Rgb, Placement) {
        let (width, height) = (self.options.width, self.options.height);
        let pixels = turn(pixels, self.inner, self.orientation);
        let is_all = self.plan.inner == (width, height);
        let pixels = if is_all { pixels } else { self.plan.paste(&pixels, &self.options) };
        (Rgb { width, height, pixels }, self.plan.placement)
    }
}

/// Which part of the upright image goes where.
struct Plan {
    /// Size of the part of the image that is resampled, centred in it, in its pixels.
    visible: (f64, f64),
    /// What that part becomes, in target pixels.
    inner: (u32, u32),
    /// Its left upper corner in the target.
    offset: (u32, u32),
    placement: Placement,
}

impl Plan {
    fn new(image: (f64, f64), options: &Options) -> Self {
        let target = (f64::from(options.width), f64::from(options.height));
        let scale = (target.0 / image.0, target.1 / image.1);
        let whole = Self {
            visible: image,
            inner: (options.width, options.height),
            offset: (0, 0),
            placement: Placement::FULL,
        };
        match options.fit {
            Fit::Stretch => whole,
            Fit::Letterbox => {
                let scale = scale.0.min(scale.1);
                let side = |image: f64, target: u32| ((image * scale).round() as u32).clamp(1, target);
                let inner = (side(image.0, options.width), side(image.1, options.height));
                let offset = ((options.width - inner.0) / 2, (options.height - inner.1) / 2);
                let fraction = |pixels: u32, of: u32| (f64::from(pixels) / f64::from(of)) as f32;
                let placement = Placement {
                    x_min: fraction(offset.0, options.width),
                    y_min: fraction(offset.1, options.height),
                    x_max: fraction(offset.0 + inner.0, options.width),
                    y_max: fraction(offset.1 + inner.1, options.height),
                };
                Self { inner, offset, placement, ..whole }
            }
            Fit::Crop => {
                let scale = scale.0.max(scale.1);
                let visible = ((target.0 / scale).min(image.0), (target.1 / scale).min(image.1));
                // The image reaches beyond the target by the same length on both sides.
                let beyond = |image: f64, visible: f64| (image / visible - 1.0) / 2.0;
                let (x, y) = (beyond(image.0, visible.0), beyond(image.1, visible.1));
                let placement = Placement {
                    x_min: -x as f32,
                    y_min: -y as f32,
                    x_max: (1.0 + x) as f32,
                    y_max: (1.0 + y) as f32,
                };
                Self { visible, placement, ..whole }
            }
        }
    }

    /// Lays the inner image on a canvas of bars.
    fn paste(&self, inner: &[u8], options: &Options) -> Vec<u8> {
        let row = options.width as usize * 3;
        let mut canvas = vec![BAR; row * options.height as usize];
        let left = self.offset.0 as usize * 3;
        let inner_row = self.inner.0 as usize * 3;
        let rows = canvas.chunks_exact_mut(row).skip(self.offset.1 as usize);
        for (to, from) in rows.zip(inner.chunks_exact(inner_row)) {
            to[left..left + inner_row].copy_from_slice(from);
        }
        canvas
    }
}

fn resample(image: &Rgb, size: (u32, u32), part: [f64; 4], filter: Filter) -> Result<Vec<u8>, Error> {
    let algorithm = match filter {
        Filter::Nearest => ResizeAlg::Nearest,
        Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Filter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    let failed = |error: &dyn std::fmt::Display| {
        Error::InvalidOptions(format!("the image cannot be resized: {error}"))
    };
    // Typed images, so that only the code for this one pixel type is in the component.
    let source = TypedImageRef::<U8x3>::from_buffer(image.width, image.height, &image.pixels)
        .map_err(|error| failed(&error))?;
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    let mut target =
        TypedImage::<U8x3>::from_buffer(size.0, size.1, &mut pixels).map_err(|error| failed(&error))?;
    let [left, top, width, height] = part;
    let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false).crop(left, top, width, height);
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| failed(&error))?;
    Ok(pixels)
}

/// Turns stored pixels of `size` upright.
fn turn(pixels: Vec<u8>, size: (u32, u32), orientation: Orientation) -> Vec<u8> {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let (right, bottom) = (width.saturating_sub(1), height.saturating_sub(1));
    // Which stored pixel lies at (x, y) of the upright image.
    let stored: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        Orientation::NoTransforms => return pixels,
        Orientation::FlipHorizontal => |x, y, right, _| (right - x, y),
        Orientation::Rotate180 => |x, y, right, bottom| (right - x, bottom - y),
        Orientation::FlipVertical => |x, y, _, bottom| (x, bottom - y),
        Orientation::Rotate90FlipH => |x, y, _, _| (y, x),
        Orientation::Rotate90 => |x, y, _, bottom| (y, bottom - x),
        Orientation::Rotate270FlipH => |x, y, right, bottom| (right - y, bottom - x),
        Orientation::Rotate270 => |x, y, right, _| (right - y, x),
    };
    let (columns, rows) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    let mut upright = Vec::with_capacity(pixels.len());
    for y in 0..rows {
        for x in 0..columns {
            let (from_x, from_y) = stored(x, y, right, bottom);
            let at = (from_y * width + from_x) * 3;
            upright.extend_from_slice(&pixels[at..at + 3]);
        }
    }
    upright
}

#[cfg(test)]
mod tests;
