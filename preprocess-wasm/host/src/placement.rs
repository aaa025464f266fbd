//! The one place that takes coordinates of a tensor back to the image in it.

/// Where the upright image lies in the tensor, as fractions of the tensor's width and height.
///
/// Stretched it fills the tensor (0, 0, 1, 1); letterboxed it lies inside; cropped it reaches beyond the edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Left edge of the image.
    pub x_min: f32,
    /// Top edge of the image.
    pub y_min: f32,
    /// Right edge of the image.
    pub x_max: f32,
    /// Bottom edge of the image.
    pub y_max: f32,
}

impl Placement {
    /// The image fills the tensor exactly.
    pub const FULL: Self = Self { x_min: 0.0, y_min: 0.0, x_max: 1.0, y_max: 1.0 };

    /// Takes a box (x_min, y_min, x_max, y_max; 0..1 of the tensor) to the upright image, clamped to 0..1 of it.
    ///
    /// A box that lies wholly beside the image becomes an empty one on its edge.
    pub fn to_image(&self, bbox: [f32; 4]) -> [f32; 4] {
        let x = |value: f32| along(value, self.x_min, self.x_max);
        let y = |value: f32| along(value, self.y_min, self.y_max);
        [x(bbox[0]), y(bbox[1]), x(bbox[2]), y(bbox[3])]
    }
}

fn along(value: f32, min: f32, max: f32) -> f32 {
    ((value - min) / (max - min)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: [f32; 4], expected: [f32; 4]) {
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-6, "{actual:?} is not {expected:?}");
        }
    }

    #[test]
    fn a_stretched_image_keeps_its_coordinates() {
        assert_close(Placement::FULL.to_image([0.1, 0.2, 0.3, 0.4]), [0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn bars_are_taken_off_and_what_lies_in_them_is_clamped() {
        // A 2:1 image letterboxed into a square: a quarter of bar above and below.
        let placement = Placement { x_min: 0.0, y_min: 0.25, x_max: 1.0, y_max: 0.75 };
        assert_close(placement.to_image([0.25, 0.25, 0.75, 0.5]), [0.25, 0.0, 0.75, 0.5]);
        assert_close(placement.to_image([0.0, 0.1, 1.0, 0.9]), [0.0, 0.0, 1.0, 1.0]);
        assert_close(placement.to_image([0.0, 0.8, 1.0, 0.9]), [0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_cropped_image_is_larger_than_the_tensor() {
        // A 2:1 image cropped to a square: the tensor shows its middle half.
        let placement = Placement { x_min: -0.5, y_min: 0.0, x_max: 1.5, y_max: 1.0 };
        assert_close(placement.to_image([0.0, 0.0, 1.0, 1.0]), [0.25, 0.0, 0.75, 1.0]);
        assert_close(placement.to_image([0.5, 0.5, 1.0, 1.0]), [0.5, 0.5, 0.75, 1.0]);
    }
}
