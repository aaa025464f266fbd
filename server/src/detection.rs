//! Boxes and scores of a detector become a short list of detections.

use std::cmp::Ordering;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::ServingError;
use crate::tensor::{DataType, Shape, Tensor};

/// One object found in an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Name of its class.
    pub class_name: Arc<str>,
    /// Score of the class as the model gives it; 0..=1 for a model that ends in a sigmoid or softmax.
    pub confidence: f32,
    /// x_min, y_min, x_max, y_max; 0..=1 of the tensor.
    pub bbox: [f32; 4],
}

/// What the four numbers of a box mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoxFormat {
    /// x_min, y_min, x_max, y_max in pixels of the tensor.
    #[default]
    XyxyPixels,
    /// x_min, y_min, x_max, y_max in 0..=1 of the tensor.
    XyxyNormalized,
    /// x and y of the centre, width, height in pixels of the tensor.
    CxcywhPixels,
}

impl BoxFormat {
    /// The word for it in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::XyxyPixels => "xyxy_pixels",
            Self::XyxyNormalized => "xyxy_normalized",
            Self::CxcywhPixels => "cxcywh_pixels",
        }
    }
}

/// A word that names no [`BoxFormat`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no box format: use one of xyxy_pixels, xyxy_normalized, cxcywh_pixels.")]
pub struct ParseBoxFormatError(String);

impl FromStr for BoxFormat {
    type Err = ParseBoxFormatError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        [Self::XyxyPixels, Self::XyxyNormalized, Self::CxcywhPixels]
            .into_iter()
            .find(|format| format.as_str() == value)
            .ok_or_else(|| ParseBoxFormatError(value.to_owned()))
    }
}

/// Makes detections of a detector's outputs.
#[derive(Clone, Debug)]
pub struct Detector {
    /// Name of the output with the boxes, FP32 `[…,boxes,4]`.
    pub boxes_output: Arc<str>,
    /// Name of the output with the scores, FP32 `[…,boxes,classes]`.
    pub scores_output: Arc<str>,
    /// What a box's numbers mean.
    pub box_format: BoxFormat,
    /// Width and height of the tensor in pixels.
    pub size: (f32, f32),
    /// The classes to keep: column among the scores, and name.
    pub classes: Vec<(usize, Arc<str>)>,
    /// Least score of a detection.
    pub score_threshold: f32,
    /// Two boxes of a class that overlap more than this are the same object.
    pub iou_threshold: f32,
    /// Detections of an image at most.
    pub max_detections: usize,
}

impl Detector {
    /// One list per row, best first.
    ///
    /// # Errors
    /// `Internal` when the outputs lack the boxes or scores, or they do not fit together.
    pub fn detect(&self, outputs: &[Tensor]) -> Result<Vec<Vec<Detection>>, ServingError> {
        let boxes = self.output(outputs, &self.boxes_output)?;
        let scores = self.output(outputs, &self.scores_output)?;
        let misfit = || {
            ServingError::Internal(format!(
                "The outputs `{}` of shape {} and `{}` of shape {} are no boxes and scores.",
                boxes.name, boxes.shape, scores.name, scores.shape
            ))
        };
        let ([batch @ .., count, 4], [score_batch @ .., score_count, classes]) =
            (&*boxes.shape, &*scores.shape)
        else {
            return Err(misfit());
        };
        if count != score_count || *classes < 1 {
            return Err(misfit());
        }
        let rows = Shape::from(batch).element_count();
        let Some(rows) = rows.filter(|_| rows == Shape::from(score_batch).element_count()) else {
            return Err(misfit());
        };
        let count = usize::try_from(*count).map_err(|_| misfit())?;
        let classes = usize::try_from(*classes).map_err(|_| misfit())?;
        let (boxes, scores) = (floats(boxes), floats(scores));
        let elements = |row: usize| rows.checked_mul(count)?.checked_mul(row);
        if elements(4) != Some(boxes.len()) || elements(classes) != Some(scores.len()) {
            return Err(misfit());
        }
        // Of a model that suppresses by itself, a row may have no boxes at all.
        let row = |row: usize| {
            let at = |size: usize| row * count * size..(row + 1) * count * size;
            self.detect_row(&boxes[at(4)], &scores[at(classes)], classes)
        };
        Ok((0..rows).map(row).collect())
    }

    /// The detections of one row: `boxes` four numbers each, `scores` as many as there are `classes` for each box.
    ///
    /// Greedy non-maximum suppression for each class by itself, as in P. Felzenszwalb et al., "Object Detection with
    /// Discriminatively Trained Part-Based Models" (PAMI 2010), section 7.2, with the overlap of PASCAL VOC
    /// (intersection over union). A box with a NaN, or empty once clamped to the tensor, is no detection; nor is one
    /// of an infinite score, which JSON has no number for.
    pub fn detect_row(&self, boxes: &[f32], scores: &[f32], classes: usize) -> Vec<Detection> {
        let mut found = Vec::new();
        for (column, name) in &self.classes {
            let column = scores.iter().skip(*column).step_by(classes.max(1));
            let mut candidates: Vec<(f32, [f32; 4])> = column
                .zip(boxes.as_chunks::<4>().0)
                // NaN is not at or over any threshold.
                .filter(|&(&score, _)| score.is_finite() && score >= self.score_threshold)
                .filter_map(|(&score, &bbox)| Some((score, self.clamped(bbox)?)))
                .collect();
            // Stable, so that equal scores keep the model's order and the same outputs give the same detections.
            candidates.sort_by(|a, b| descending(a.0, b.0));
            let mut kept: Vec<[f32; 4]> = Vec::new();
            for (confidence, bbox) in candidates {
                if kept.len() == self.max_detections {
                    break;
                }
                if kept.iter().all(|&better| iou(better, bbox) <= self.iou_threshold) {
                    kept.push(bbox);
                    found.push(Detection { class_name: Arc::clone(name), confidence, bbox });
                }
            }
        }
        found.sort_by(|a, b| descending(a.confidence, b.confidence));
        found.truncate(self.max_detections);
        found
    }

    /// A box in 0..=1 of the tensor; `None` if nothing of it is left.
    fn clamped(&self, bbox: [f32; 4]) -> Option<[f32; 4]> {
        let (width, height) = self.size;
        let [a, b, c, d] = bbox;
        let [x_min, y_min, x_max, y_max] = match self.box_format {
            BoxFormat::XyxyNormalized => bbox,
            BoxFormat::XyxyPixels => [a / width, b / height, c / width, d / height],
            BoxFormat::CxcywhPixels => {
                [(a - c / 2.0) / width, (b - d / 2.0) / height, (a + c / 2.0) / width, (b + d / 2.0) / height]
            }
        }
        .map(|value| value.clamp(0.0, 1.0));
        // False for NaN, too.
        (x_max > x_min && y_max > y_min).then_some([x_min, y_min, x_max, y_max])
    }

    fn output<'a>(&self, outputs: &'a [Tensor], name: &str) -> Result<&'a Tensor, ServingError> {
        let found = outputs.iter().find(|output| output.name == name && output.datatype == DataType::Fp32);
        found.ok_or_else(|| {
            ServingError::Internal(format!("The answer has no FP32 output `{name}` to make detections of."))
        })
    }
}

/// Intersection over union of two boxes (x_min, y_min, x_max, y_max): 0 for boxes apart, 1 for equal ones.
pub fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let intersection = width * height;
    let area = |r: [f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let union = area(a) + area(b) - intersection;
    if union > 0.0 { intersection / union } else { 0.0 }
}

fn descending(a: f32, b: f32) -> Ordering {
    b.total_cmp(&a)
}

/// The numbers of an FP32 tensor, copied only where its bytes happen to lie unaligned.
fn floats(tensor: &Tensor) -> std::borrow::Cow<'_, [f32]> {
    match bytemuck::try_cast_slice(&tensor.data) {
        Ok(floats) => floats.into(),
        Err(_) => tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    }
}

#[cfg(test)]
mod tests;
