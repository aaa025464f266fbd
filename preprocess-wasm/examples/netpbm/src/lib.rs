//! An example of a model's own preprocessing: it takes binary PGM (`P5`) and PPM (`P6`) images of 8 bits, as cameras of
//! machines send them, and nothing else.
//!
//! An instance lives for one image: `probe` gets it and answers what its header says; `tensor` or `preprocess` is called
//! after that, once, with more memory. Nothing is imported, and a panic is a trap: the image is refused, the server goes on.

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "preprocessor" });
    use super::Netpbm;
    export!(Netpbm);
}
mod image;

use std::cell::RefCell;

use bindings::exports::convoy::preprocess::images::{
    Color, Error, Features, Fit, Guest, ImageInfo, ImageTensor, Options, Placement, Preprocessed,
};
use image::Image;

struct Netpbm;

thread_local! {
    /// What `probe` was given.
    static IMAGE: RefCell<Option<Image>> = const { RefCell::new(None) };
}

impl Guest for Netpbm {
    fn probe(bytes: Vec<u8>, max_pixels: u64) -> Result<ImageInfo, Error> {
        let image = Image::read(bytes, max_pixels)?;
        let info = ImageInfo {
            width: image.width,
            height: image.height,
            format: "PPM".to_owned(),
            mode: if image.channels == 1 { "L" } else { "RGB" }.to_owned(),
        };
        IMAGE.set(Some(image));
        Ok(info)
    }

    fn tensor(options: Options) -> Result<ImageTensor, Error> {
        if options.fit != Fit::Stretch {
            return Err(Error::InvalidOptions("this component only stretches".to_owned()));
        }
        let image = IMAGE.take().ok_or_else(|| Error::InvalidOptions("no image was probed".to_owned()))?;
        let pixels = resized(&image, &options);
        let features = features(&pixels);
        let placement = Placement { x_min: 0.0, y_min: 0.0, x_max: 1.0, y_max: 1.0 };
        Ok(ImageTensor { pixels, placement, features })
    }

    /// Only `POST /preprocess` asks for this, and never of a model's own component.
    fn preprocess(_: Options) -> Result<Preprocessed, Error> {
        Err(Error::UnsupportedFormat("this component writes no JPEG".to_owned()))
    }
}

/// The pixel nearest to the middle of each target pixel: the filter that is asked for is a wish.
fn resized(image: &Image, options: &Options) -> Vec<u8> {
    let nearest =
        |at: u32, to: u32, from: u32| (u64::from(at) * 2 + 1) * u64::from(from) / (2 * u64::from(to));
    let mut pixels = Vec::with_capacity((options.width * options.height * 3) as usize);
    for y in 0..options.height {
        let y = nearest(y, options.height, image.height);
        for x in 0..options.width {
            let [red, green, blue] = image.rgb(nearest(x, options.width, image.width), y);
            match options.color {
                Color::Rgb => pixels.extend([red, green, blue]),
                Color::Bgr => pixels.extend([blue, green, red]),
                Color::Gray => {
                    let luma = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
                    pixels.push((luma / 1000) as u8);
                }
            }
        }
    }
    pixels
}

fn features(bytes: &[u8]) -> Features {
    let count = bytes.len().max(1) as f64;
    let mean = bytes.iter().map(|&byte| f64::from(byte)).sum::<f64>() / count;
    let variance = bytes.iter().map(|&byte| (f64::from(byte) - mean).powi(2)).sum::<f64>() / count;
    Features {
        mean,
        std: variance.sqrt(),
        min: bytes.iter().copied().min().unwrap_or(0),
        max: bytes.iter().copied().max().unwrap_or(0),
    }
}
