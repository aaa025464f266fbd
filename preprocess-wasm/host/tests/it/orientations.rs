//! The eight orientations of EXIF, pixel by pixel, and the way back from the tensor to the upright image.

use bytes::Bytes;
use sandbox::{Decode, Filter, Fit, ImageTensor, Resize};

use crate::corpus::files;
use crate::fixtures::{sandbox, stretch};

type Size = (usize, usize);
type Pixel = [u8; 3];

/// An image of so many pixels, row by row.
struct Picture {
    size: Size,
    pixels: Vec<Pixel>,
}

impl Picture {
    fn new(size: Size, pixel: impl Fn(usize, usize) -> Pixel) -> Self {
        let pixels =
            (0..size.1).flat_map(|y| (0..size.0).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        Self { size, pixels }
    }

    fn of(tensor: &ImageTensor) -> Self {
        let size = (tensor.width as usize, tensor.height as usize);
        Self { size, pixels: tensor.pixels.as_chunks().0.to_vec() }
    }

    fn at(&self, x: usize, y: usize) -> Pixel {
        self.pixels[y * self.size.0 + x]
    }

    /// What the file shows (EXIF 2.32, 4.6.4, Orientation): which visual side the stored rows and columns begin at.
    fn upright(&self, orientation: u32) -> Self {
        let (width, height) = self.size;
        let (right, bottom) = (width - 1, height - 1);
        let size = if orientation < 5 { (width, height) } else { (height, width) };
        Self::new(size, |x, y| match orientation {
            1 => self.at(x, y),
            2 => self.at(right - x, y),
            3 => self.at(right - x, bottom - y),
            4 => self.at(x, bottom - y),
            5 => self.at(y, x),
            6 => self.at(y, bottom - x),
            7 => self.at(right - y, bottom - x),
            8 => self.at(right - y, x),
            other => panic!("there is no orientation {other}"),
        })
    }

    /// The largest difference in any byte.
    fn difference(&self, other: &Self) -> u8 {
        assert_eq!(self.size, other.size);
        let pairs = self.pixels.as_flattened().iter().zip(other.pixels.as_flattened());
        pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }
}

/// The picture that most files of the corpus show (`tests/corpus/formats/bits.py`).
fn slopes(x: usize, y: usize) -> Pixel {
    let noise = (((x * 7919 + y * 104_729) * 2_654_435_761) >> 16) % 16;
    [x * 5 + noise, y * 6 + noise, (x + y) * 2 + noise].map(|value| (value % 256) as u8)
}

async fn tensor(image: &Bytes, (width, height): Size, fit: Fit, filter: Filter) -> ImageTensor {
    let resize = Resize { fit, filter, decode: Decode::Full, ..stretch(width as u32, height as u32) };
    sandbox().tensor(image.clone(), resize, None).await.unwrap()
}

/// Name, orientation, bytes and what is stored of each file that says how it is to be turned.
async fn turned() -> Vec<(String, u32, Bytes, Picture)> {
    let mut turned = Vec::new();
    for (name, bytes, _) in files() {
        let Some((kind, rest)) = name.split_once("_orientation_") else { continue };
        let stored = match kind {
            "png" => Picture::new((24, 20), slopes),
            "webp" | "tiff" => Picture::new((48, 40), slopes),
            _ => {
                let plain = files().into_iter().find(|(name, ..)| name == "jpeg_baseline.jpg").unwrap().1;
                Picture::of(&tensor(&plain, (48, 40), Fit::Stretch, Filter::Nearest).await)
            }
        };
        turned.push((name.clone(), rest[..1].parse().unwrap(), bytes, stored));
    }
    assert_eq!(turned.len(), 18);
    turned
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pixel_is_where_the_orientation_says() {
    for (name, orientation, bytes, stored) in turned().await {
        let upright = stored.upright(orientation);
        // The corners tell the orientations apart.
        assert!(orientation == 1 || stored.at(0, 0) != upright.at(0, 0) || orientation == 5, "{name}");
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Lanczos3] {
            let tensor = tensor(&bytes, upright.size, Fit::Stretch, filter).await;
            let source = (tensor.source.width as usize, tensor.source.height as usize);
            assert_eq!(source, upright.size, "{name}");
            // A filter joins the planes of a JPEG otherwise than its decoder.
            let most = if filter != Filter::Nearest && name.starts_with("jpeg") { 3 } else { 0 };
            let difference = Picture::of(&tensor).difference(&upright);
            assert!(difference <= most, "{name}, {filter}: {difference}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_of_the_tensor_map_back_to_the_upright_image() {
    for (name, orientation, bytes, stored) in turned().await {
        let upright = stored.upright(orientation);
        let (long, short) = (upright.size.0.max(upright.size.1), upright.size.0.min(upright.size.1));
        // Each pixel becomes four: all of them with bars beside them, and a square of them.
        for (fit, side, visible) in
            [(Fit::Letterbox, 2 * long, 4 * long * short), (Fit::Crop, 2 * short, 4 * short * short)]
        {
            let tensor = tensor(&bytes, (side, side), fit, Filter::Nearest).await;
            let shown = Picture::of(&tensor);
            let edge = |at: usize| at as f32 / side as f32;
            let mut within = 0;
            for (x, y) in (0..side).flat_map(|y| (0..side).map(move |x| (x, y))) {
                let [left, top, right, bottom] =
                    tensor.placement.to_image([edge(x), edge(y), edge(x + 1), edge(y + 1)]);
                if right - left < 1e-4 || bottom - top < 1e-4 {
                    assert_eq!(shown.at(x, y), [114; 3], "{name}, {fit}: beside the image at {x}, {y}");
                    continue;
                }
                let place =
                    |low: f32, high: f32, pixels: usize| ((low + high) / 2.0 * pixels as f32) as usize;
                let from = (place(left, right, upright.size.0), place(top, bottom, upright.size.1));
                assert_eq!(
                    shown.at(x, y),
                    upright.at(from.0, from.1),
                    "{name}, {fit}: {x}, {y} from {from:?}"
                );
                within += 1;
            }
            assert_eq!(within, visible, "{name}, {fit}");
        }
    }
}
