#![allow(clippy::unwrap_used)]

use super::*;
use convoy_proto::inference::ModelParameter;
use model_serving::backend::Acceleration;
use model_serving::tensor::Shape;

fn rules(detector: bool, tf32: &str) -> Rules {
    let mut config = ModelConfig::default();
    let mut set = |name: &str, value: &str| {
        config.parameters.insert(name.to_owned(), ModelParameter { string_value: value.to_owned() })
    };
    if detector {
        set("task", "detection");
        set("box_format", "xyxy_pixels");
    }
    let mut acceleration = Acceleration::default();
    acceleration.cuda.insert("use_tf32".to_owned(), tf32.to_owned());
    Rules::new(&config, &RawDevice { provider: ExecutionProvider::Cuda, gpu: 0, acceleration }, None)
}

fn floats(values: &[f32], dims: &[i64]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name: String::new(), datatype: DataType::Fp32, shape: Shape::from(dims), data: data.into() }
}

#[test]
fn scores_and_boxes_have_their_bounds_in_full_precision() {
    let rules = rules(true, "0");
    let at = |name: &str, by: f32| rules.compare(name, &floats(&[10.0 + by], &[1]), &floats(&[10.0], &[1]));
    assert!(at("boxes", 0.09).within && !at("boxes", 0.11).within);
    assert!(at("scores", 0.0009).within && !at("scores", 0.0011).within);
    assert!(at("other", 0.009).within && !at("other", 0.011).within, "a thousandth of 10");
    assert!(!at("scores", f32::NAN).within);
    assert_eq!(at("boxes", 0.05).bound, Some(0.1));
    let shorter = rules.compare("boxes", &floats(&[1.0], &[1]), &floats(&[1.0, 2.0], &[2]));
    assert!(!shorter.within);
}

#[test]
fn in_reduced_precision_the_detections_decide() {
    let rules = rules(true, "1");
    let boxes = rules.compare("boxes", &floats(&[11.0], &[1]), &floats(&[10.0], &[1]));
    assert_eq!((boxes.bound, boxes.within), (None, true));
    let other = rules.compare("other", &floats(&[10.2], &[1]), &floats(&[10.0], &[1]));
    assert!(!other.within);
}

#[test]
fn every_detection_of_the_cpu_must_be_there() {
    let rules = rules(true, "1");
    let boxes = [0.0, 0.0, 100.0, 100.0, 50.0, 50.0, 60.0, 60.0];
    let scores = [0.9, 0.1, 0.2, 0.5];
    let pairs = |boxes_by: f32, scores_by: f32| {
        let moved: Vec<f32> = boxes.iter().map(|value| value + boxes_by).collect();
        let scored: Vec<f32> = scores.iter().map(|value| value + scores_by).collect();
        let (moved, scored) = (floats(&moved, &[2, 4]), floats(&scored, &[2, 2]));
        let (cpu_boxes, cpu_scores) = (floats(&boxes, &[2, 4]), floats(&scores, &[2, 2]));
        rules
            .pairs(
                &[("boxes", &moved), ("scores", &scored)],
                &[("boxes", &cpu_boxes), ("scores", &cpu_scores)],
            )
            .unwrap()
    };
    let same = pairs(0.0, 0.0);
    assert_eq!((same.checked, same.apart, same.least_iou, same.most_score), (2, 0, 1.0, 0.0));
    assert_eq!(pairs(0.0, 0.02).apart, 2);
    // A tenth of a pixel is much for the small box only.
    assert_eq!(pairs(0.1, 0.0).apart, 1);
    assert_eq!(pairs(f32::NAN, 0.0).apart, 2);
    assert_eq!(self::rules(false, "0").pairs(&[], &[]), None);
}

#[test]
fn all_types_are_compared() {
    let rules = rules(false, "0");
    for datatype in DataType::ALL {
        let tensor = |last: u8| {
            let data = match datatype {
                DataType::Bytes => Tensor::from_byte_strings("", [vec![b'a'], vec![b'a' + last]]).data,
                DataType::Fp16 => [0x00, 0x3c, last << 4, 0x3c].to_vec().into(),
                DataType::Bf16 => [0x80, 0x3f, last << 4, 0x3f].to_vec().into(),
                DataType::Fp32 => return floats(&[1.0, f32::from(last)], &[2]),
                other => {
                    let size = other.byte_size().unwrap();
                    let mut data = vec![0; 2 * size];
                    data[2 * size - 1] = last;
                    data.into()
                }
            };
            Tensor { name: String::new(), datatype, shape: Shape::from([2]), data }
        };
        let same = rules.compare("x", &tensor(1), &tensor(1));
        assert!(same.within && same.unequal == 0, "{datatype}: {same:?}");
        // The last byte of a double is its exponent's.
        let other = rules.compare("x", &tensor(0x40), &tensor(1));
        assert!(!other.within && other.unequal == 1, "{datatype}: {other:?}");
    }
}

#[test]
fn what_tensorrt_may_reduce_counts_where_it_runs() {
    let is_full = |provider, fp16: &str, tf32_override| {
        let tensorrt = [("trt_fp16_enable".to_owned(), fp16.to_owned())].into();
        let acceleration = Acceleration { tensorrt: Some(tensorrt), ..Acceleration::default() };
        let device = RawDevice { provider, gpu: 0, acceleration };
        Rules::new(&ModelConfig::default(), &device, tf32_override).full_precision
    };
    assert!(is_full(ExecutionProvider::Cuda, "1", None), "it fell back");
    assert!(!is_full(ExecutionProvider::TensorRt, "1", None));
    // TF32 is its own choice, unless the environment forbids it.
    assert!(!is_full(ExecutionProvider::TensorRt, "0", None));
    assert!(!is_full(ExecutionProvider::TensorRt, "0", Some("1")));
    assert!(is_full(ExecutionProvider::TensorRt, "0", Some("0")));
    assert!(!is_full(ExecutionProvider::TensorRt, "1", Some("0")));
}

#[test]
fn tf32_that_the_environment_forbids_is_not_expected() {
    let is_full = |tf32: &str, tf32_override| {
        let mut acceleration = Acceleration::default();
        acceleration.cuda.insert("use_tf32".to_owned(), tf32.to_owned());
        let device = RawDevice { provider: ExecutionProvider::Cuda, gpu: 0, acceleration };
        Rules::new(&ModelConfig::default(), &device, tf32_override).full_precision
    };
    assert!(is_full("0", None) && !is_full("1", None) && is_full("1", Some("0")));
}
