//! Statistics of an image.

/// Statistics over all bytes of an RGB image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Mean, 0..=255.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Smallest byte.
    pub min: u8,
    /// Largest byte.
    pub max: u8,
}

impl Features {
    /// Measures all bytes; of none, all statistics are zero.
    ///
    /// The sums are integers, so the result does not depend on the order of the bytes. They fit: a target of
    /// 4096x4096 has 5e7 bytes, whose squares sum up to 3.3e12 at most.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self { mean: 0.0, std: 0.0, min: 0, max: 0 };
        }
        let (mut sum, mut squares) = (0_u64, 0_u64);
        let (mut min, mut max) = (u8::MAX, u8::MIN);
        // Sums of a short chunk fit in 32 bits, which lets the compiler use whole SIMD registers.
        for chunk in bytes.chunks(4096) {
            let (mut chunk_sum, mut chunk_squares) = (0_u32, 0_u32);
            for &byte in chunk {
                chunk_sum += u32::from(byte);
                chunk_squares += u32::from(byte) * u32::from(byte);
                min = min.min(byte);
                max = max.max(byte);
            }
            sum += u64::from(chunk_sum);
            squares += u64::from(chunk_squares);
        }
        let count = bytes.len() as f64;
        let mean = sum as f64 / count;
        let variance = (squares as f64 / count - mean * mean).max(0.0);
        Self { mean, std: variance.sqrt(), min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_statistics() {
        let features = Features::of(&[2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!(features, Features { mean: 5.0, std: 2.0, min: 2, max: 9 });
    }

    #[test]
    fn one_colour_has_no_deviation() {
        let features = Features::of(&[200; 10_000]);
        assert_eq!(features, Features { mean: 200.0, std: 0.0, min: 200, max: 200 });
    }

    #[test]
    fn the_brightest_largest_image_does_not_overflow() {
        let mut bytes = vec![255; 4096 * 4096 * 3];
        bytes[0] = 0;
        let features = Features::of(&bytes);
        assert!(features.mean > 254.9 && features.max == 255 && features.min == 0);
        assert!(features.std > 0.03 && features.std < 0.04, "{features:?}");
    }

    #[test]
    fn nothing_measures_zero() {
        assert_eq!(Features::of(&[]).mean, 0.0);
    }
}
