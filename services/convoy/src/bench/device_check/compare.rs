//! Whether a device computes what the CPU does.

use super::super::raw::RawDevice;
use convoy_proto::inference::ModelConfig;
use half::{bf16, f16};
use model_serving::backend::ExecutionProvider;
use model_serving::tensor::{DataType, Tensor, byte_string_ends};
use serde::Serialize;

/// The environment variable of NVIDIA's libraries that is 0 where none of them may take TF32, whatever is asked for.
pub(super) const TF32_OVERRIDE: &str = "NVIDIA_TF32_OVERRIDE";

/// Scores above this are those of detections.
const DETECTION: f64 = 0.35;
/// How far scores may be from the CPU's in full precision, and the pixels of boxes.
const SCORE: f64 = 1e-3;
const PIXELS: f64 = 0.1;
/// How far a detection may be from the CPU's in whatever precision is configured.
const PAIR_IOU: f64 = 0.99;
const PAIR_SCORE: f64 = 0.01;
/// How far another float may be from the CPU's, of the largest value of its output (or of 1): in full precision, and
/// otherwise.
const FLOAT: f64 = 1e-3;
const FLOAT_REDUCED: f64 = 1e-2;

/// How far an output is from the CPU's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    pub(super) output: String,
    pub(super) datatype: &'static str,
    /// In the output's own unit; `None` for what are no numbers.
    pub(super) max_abs: Option<f64>,
    pub(super) mean_abs: Option<f64>,
    /// Elements that are not the same.
    pub(super) unequal: usize,
    /// What `max_abs` may be; `None`: the elements must be the same, or the detections decide.
    pub(super) bound: Option<f64>,
    pub(super) within: bool,
}

impl Difference {
    /// Of outputs between which there is no distance.
    fn of_no_numbers(output: String, datatype: &'static str, unequal: usize, within: bool) -> Self {
        Self { output, datatype, max_abs: None, mean_abs: None, unequal, bound: None, within }
    }
}

/// Detections of the CPU, and whether the device has them, too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Pairs {
    pub(super) checked: usize,
    /// Those that the device has elsewhere, or with another score.
    pub(super) apart: usize,
    pub(super) least_iou: f64,
    pub(super) most_score: f64,
}

impl Pairs {
    /// What is to be done for a comparison, where the CPU detects nothing and there is nothing to compare.
    pub(super) fn not_checked(&self, has_photo: bool) -> Option<&'static str> {
        let advice = match has_photo {
            true => "the CPU detects nothing in the photo: give another",
            false => "give --photo",
        };
        (self.checked == 0).then_some(advice)
    }
}

/// What is compared with what bounds.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// No reduced precision is configured.
    full_precision: bool,
    detector: Option<Detector>,
}

#[derive(Clone, Debug)]
struct Detector {
    boxes: String,
    scores: String,
    /// Centre and size instead of corners.
    centred: bool,
    /// Pixels that a step of 1 in a box is.
    pixels: f64,
}

impl Rules {
    /// The rules for a model of this configuration, where the environment has `tf32_override` for [`TF32_OVERRIDE`].
    pub(super) fn new(
        config: &ModelConfig,
        RawDevice { provider, acceleration, .. }: &RawDevice,
        tf32_override: Option<&str>,
    ) -> Self {
        let is_on = |options: &std::collections::BTreeMap<String, String>, name: &str| {
            options.get(name).is_some_and(|value| value == "1")
        };
        let is_tensorrt = *provider == ExecutionProvider::TensorRt;
        // TensorRT takes TF32 by itself, and ONNX Runtime has no option against it.
        let has_tf32 = is_on(&acceleration.cuda, "use_tf32") || is_tensorrt;
        let reduced = has_tf32 && tf32_override != Some("0")
            || acceleration.tensorrt.as_ref().is_some_and(|options| {
                let is_reduced = is_on(options, "trt_fp16_enable") || is_on(options, "trt_int8_enable");
                is_tensorrt && is_reduced
            });
        let text = |name: &str| config.parameters.get(name).map(|value| value.string_value.as_str());
        let format = text("box_format").unwrap_or_default();
        let side = config.input.iter().flat_map(|input| &input.dims).copied().max().unwrap_or(1).max(1);
        let detector = (text("task") == Some("detection")).then(|| Detector {
            boxes: text("boxes_output").unwrap_or("boxes").to_owned(),
            scores: text("scores_output").unwrap_or("scores").to_owned(),
            centred: format.starts_with("cxcywh"),
            pixels: if format.ends_with("normalized") { side as f64 } else { 1.0 },
        });
        Self { full_precision: !reduced, detector }
    }

    /// Compares one output.
    pub(super) fn compare(&self, name: &str, device: &Tensor, cpu: &Tensor) -> Difference {
        let datatype = cpu.datatype.as_str();
        let output = name.to_owned();
        if (device.datatype, &device.shape) != (cpu.datatype, &cpu.shape) {
            return Difference::of_no_numbers(
                output,
                datatype,
                cpu.shape.element_count().unwrap_or(0),
                false,
            );
        }
        let (Some(ours), Some(theirs)) = (numbers(device), numbers(cpu)) else {
            let unequal = unequal(device, cpu);
            return Difference::of_no_numbers(output, datatype, unequal, unequal == 0);
        };
        let apart: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).collect();
        // `f64::max` would take an output that is no number for none at all.
        let most = |values: &[f64]| {
            let more =
                |most: f64, by: f64| if by.is_nan() || most.is_nan() { f64::NAN } else { most.max(by) };
            values.iter().copied().fold(0.0, more)
        };
        let max_abs = most(&apart);
        let mean_abs = apart.iter().sum::<f64>() / apart.len().max(1) as f64;
        let unequal = apart.iter().filter(|&&by| by != 0.0).count();
        let is_float =
            matches!(cpu.datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
        let largest =
            theirs.iter().map(|value| value.abs()).filter(|value| value.is_finite()).fold(1.0, f64::max);
        let bound = match (&self.detector, self.full_precision) {
            _ if !is_float => self.full_precision.then_some(0.0),
            (Some(detector), true) if detector.boxes == name => Some(PIXELS / detector.pixels),
            (Some(detector), true) if detector.scores == name => Some(SCORE),
            (Some(detector), false) if [&detector.boxes, &detector.scores].contains(&&output) => None,
            (_, true) => Some(FLOAT * largest),
            (_, false) => Some(FLOAT_REDUCED * largest),
        };
        // An output that is no number is beyond every bound.
        let within = bound.map_or(!max_abs.is_nan(), |bound| max_abs <= bound);
        let (max_abs, mean_abs) = (Some(max_abs), Some(mean_abs));
        Difference { output, datatype, max_abs, mean_abs, unequal, bound, within }
    }

    /// Compares the detections of a detector's outputs, which are given with their names.
    pub(super) fn pairs(&self, device: &[(&str, &Tensor)], cpu: &[(&str, &Tensor)]) -> Option<Pairs> {
        let detector = self.detector.as_ref()?;
        let of = |outputs: &[(&str, &Tensor)], name: &str| {
            outputs.iter().find(|output| output.0 == name).and_then(|output| numbers(output.1))
        };
        let (boxes, cpu_boxes) = (of(device, &detector.boxes)?, of(cpu, &detector.boxes)?);
        let (scores, cpu_scores) = (of(device, &detector.scores)?, of(cpu, &detector.scores)?);
        let anchors = cpu_boxes.len() / 4;
        if anchors == 0 || boxes.len() != cpu_boxes.len() || scores.len() != cpu_scores.len() {
            return None;
        }
        let classes = cpu_scores.len() / anchors;
        let mut pairs = Pairs { checked: 0, apart: 0, least_iou: 1.0, most_score: 0.0 };
        let detected = cpu_scores.iter().enumerate().filter(|(_, score)| **score > DETECTION);
        for (at, score) in detected {
            let anchor = at / classes.max(1);
            let overlap = iou(corners(&boxes, anchor, detector), corners(&cpu_boxes, anchor, detector));
            let by = (scores[at] - score).abs();
            pairs.checked += 1;
            let together = overlap >= PAIR_IOU && by <= PAIR_SCORE;
            pairs.apart += usize::from(!together);
            pairs.least_iou = if overlap.is_nan() { 0.0 } else { pairs.least_iou.min(overlap) };
            pairs.most_score = if by.is_nan() { f64::MAX } else { pairs.most_score.max(by) };
        }
        Some(pairs)
    }
}

fn corners(boxes: &[f64], anchor: usize, detector: &Detector) -> [f64; 4] {
    let four = &boxes[4 * anchor..4 * anchor + 4];
    let [a, b, c, d] = [four[0], four[1], four[2], four[3]];
    if detector.centred { [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0] } else { [a, b, c, d] }
}

/// Intersection over union.
fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    // Two boxes without an area are the same when their corners are.
    if either == 0.0 { f64::from(u8::from(a == b)) } else { both / either }
}

/// The elements as numbers; `None` for strings.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = &tensor.data;
    macro_rules! read {
        ($type:ty, $to:expr) => {
            data.chunks_exact(size_of::<$type>())
                .map(|bytes| <$type>::from_le_bytes(bytes.try_into().unwrap_or_default()))
                .map($to)
                .collect()
        };
    }
    Some(match tensor.datatype {
        DataType::Bool | DataType::Uint8 => data.iter().map(|&byte| f64::from(byte)).collect(),
        DataType::Int8 => read!(i8, f64::from),
        DataType::Uint16 => read!(u16, f64::from),
        DataType::Int16 => read!(i16, f64::from),
        DataType::Uint32 => read!(u32, f64::from),
        DataType::Int32 => read!(i32, f64::from),
        DataType::Fp16 => read!(u16, |bits| f16::from_bits(bits).to_f64()),
        DataType::Bf16 => read!(u16, |bits| bf16::from_bits(bits).to_f64()),
        DataType::Fp32 => read!(f32, f64::from),
        DataType::Fp64 => read!(f64, |value| value),
        // Not every one of them is a double.
        DataType::Uint64 | DataType::Int64 | DataType::Bytes => return None,
    })
}

/// Elements that differ, of those that are compared bit by bit.
fn unequal(device: &Tensor, cpu: &Tensor) -> usize {
    if cpu.datatype != DataType::Bytes {
        let pairs = device.data.chunks_exact(8).zip(cpu.data.chunks_exact(8));
        return pairs.filter(|(a, b)| a != b).count();
    }
    let strings = |tensor: &Tensor| -> Vec<Vec<u8>> {
        let ends = byte_string_ends(&tensor.data).unwrap_or_default();
        let starts = std::iter::once(0).chain(ends.clone());
        starts.zip(ends).map(|(start, end)| tensor.data[start..end].to_vec()).collect()
    };
    strings(device).iter().zip(strings(cpu)).filter(|(a, b)| **a != *b).count()
}

#[cfg(test)]
mod tests;
