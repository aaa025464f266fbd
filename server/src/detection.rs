//! Boxes and scores of a detector become a short list of detections.

use std::sync::Arc;

/// One object found in an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Name of its class.
    pub class_name: Arc<str>,
    /// Score of the class, 0..=1.
    pub confidence: f32,
    /// x_min, y_min, x_max, y_max; 0..=1 of the tensor.
    pub bbox: [f32; 4],
}
