#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn detector(classes: usize) -> Detector {
    Detector {
        boxes_output: "boxes".into(),
        scores_output: "scores".into(),
        box_format: BoxFormat::XyxyPixels,
        size: (100.0, 200.0),
        classes: (0..classes).map(|class| (class, format!("class {class}").into())).collect(),
        score_threshold: 0.5,
        iou_threshold: 0.5,
        max_detections: 10,
    }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    let data = bytemuck::cast_slice::<f32, u8>(values).to_vec().into();
    Tensor { name: name.to_owned(), datatype: DataType::Fp32, shape: Shape::from(dims), data }
}

#[test]
fn boxes_become_fractions_of_the_tensor_best_first() {
    let boxes = [10.0, 20.0, 60.0, 120.0, -5.0, 0.0, 400.0, 100.0];
    let found = detector(1).detect_row(&boxes, &[0.6, 0.9], 1);
    assert_eq!(found[0].bbox, [0.0, 0.0, 1.0, 0.5]);
    assert_eq!(found[1].bbox, [0.1, 0.1, 0.6, 0.6]);
    assert_eq!((found[0].confidence, &*found[0].class_name), (0.9, "class 0"));
}

#[test]
fn every_box_format_gives_the_same_box() {
    let expected = [0.1, 0.1, 0.5, 0.6];
    for (box_format, bbox) in [
        (BoxFormat::XyxyPixels, [10.0, 20.0, 50.0, 120.0]),
        (BoxFormat::XyxyNormalized, expected),
        (BoxFormat::CxcywhPixels, [30.0, 70.0, 40.0, 100.0]),
    ] {
        assert_eq!(box_format.as_str().parse::<BoxFormat>().unwrap(), box_format);
        let found = Detector { box_format, ..detector(1) }.detect_row(&bbox, &[0.9], 1);
        let close = found[0].bbox.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close, "{:?}", found[0].bbox);
    }
}

#[test]
fn overlapping_boxes_of_one_class_are_one_object_and_of_two_classes_two() {
    let boxes = [0.0, 0.0, 50.0, 50.0, 2.0, 2.0, 52.0, 52.0, 60.0, 60.0, 90.0, 90.0];
    let one_class = detector(1).detect_row(&boxes, &[0.7, 0.8, 0.6], 1);
    assert_eq!(one_class.iter().map(|found| found.confidence).collect::<Vec<_>>(), [0.8, 0.6]);
    let two_classes = detector(2).detect_row(&boxes, &[0.7, 0.0, 0.0, 0.8, 0.0, 0.0], 2);
    assert_eq!(two_classes.len(), 2);
}

#[test]
fn only_kept_classes_count_and_only_so_many_detections() {
    let boxes: Vec<f32> = (0..4).flat_map(|i| [i as f32 * 20.0, 0.0, i as f32 * 20.0 + 10.0, 10.0]).collect();
    let scores = [0.9, 0.6, 0.9, 0.7, 0.9, 0.8, 0.9, 0.95];
    let kept = Detector { classes: vec![(1, "kept".into())], max_detections: 3, ..detector(2) };
    let found = kept.detect_row(&boxes, &scores, 2);
    assert_eq!(found.iter().map(|found| found.confidence).collect::<Vec<_>>(), [0.95, 0.8, 0.7]);
    assert!(found.iter().all(|found| &*found.class_name == "kept"));
}

#[test]
fn nan_and_empty_boxes_are_no_detections() {
    let boxes =
        [0.0, 0.0, f32::NAN, 9.0, 5.0, 5.0, 5.0, 9.0, 150.0, 0.0, 200.0, 9.0, 0.0, 0.0, f32::INFINITY, 20.0];
    let found = detector(1).detect_row(&boxes, &[0.9, 0.9, 0.9, 0.8], 1);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].bbox, [0.0, 0.0, 1.0, 0.1]);
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(detector(1).detect_row(&[0.0, 0.0, 9.0, 9.0], &[score], 1).is_empty(), "{score}");
    }
}

#[test]
fn a_row_without_boxes_has_no_detections() {
    for (batch, rows) in [(&[3][..], 3), (&[], 1)] {
        let boxes = tensor("boxes", &[batch, &[0, 4]].concat(), &[]);
        let scores = tensor("scores", &[batch, &[0, 2]].concat(), &[]);
        assert_eq!(detector(2).detect(&[boxes, scores]).unwrap(), vec![vec![]; rows]);
    }
}

#[test]
fn rows_of_a_batch_are_kept_apart() {
    let boxes = tensor("boxes", &[2, 1, 4], &[0.0, 0.0, 10.0, 10.0, 0.0, 0.0, 20.0, 20.0]);
    let scores = tensor("scores", &[2, 1, 1], &[0.9, 0.3]);
    let rows = detector(1).detect(&[scores.clone(), boxes.clone()]).unwrap();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    // Bytes that lie where no f32 may lie are read all the same.
    let mut shifted = vec![0_u8];
    shifted.extend_from_slice(&boxes.data);
    let shifted = Tensor { data: bytes::Bytes::from(shifted).slice(1..), ..boxes };
    assert_eq!(detector(1).detect(&[shifted, scores]).unwrap(), rows);
}

#[test]
fn outputs_that_do_not_fit_together_are_an_error() {
    let boxes = tensor("boxes", &[1, 2, 4], &[0.0; 8]);
    for scores in [
        tensor("scores", &[1, 3, 1], &[0.0; 3]),
        tensor("scores", &[2, 2, 1], &[0.0; 4]),
        tensor("scores", &[], &[0.0]),
        tensor("scores", &[1, 2, 0], &[]),
        tensor("scores", &[1, 2, 1], &[0.0; 3]),
        tensor("other", &[1, 2, 1], &[0.0; 2]),
    ] {
        assert!(matches!(detector(1).detect(&[boxes.clone(), scores]), Err(ServingError::Internal(_))));
    }
}

/// Suppression as its definition reads: a box is kept if no better kept box of its class overlaps it too much.
fn reference(boxes: &[[f32; 4]], scores: &[f32], detector: &Detector) -> Vec<f32> {
    let mut order: Vec<usize> = (0..boxes.len()).filter(|&i| scores[i] >= detector.score_threshold).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for candidate in order {
        let overlaps = |&other: &usize| iou(boxes[other], boxes[candidate]) > detector.iou_threshold;
        if !kept.iter().any(overlaps) {
            kept.push(candidate);
        }
    }
    kept.truncate(detector.max_detections);
    kept.into_iter().map(|i| scores[i]).collect()
}

fn number() -> impl Strategy<Value = f32> {
    prop_oneof![9 => -50.0_f32..250.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)]
}

proptest! {
    #[test]
    fn detections_keep_their_promises(
        rows in proptest::collection::vec((proptest::array::uniform4(number()), proptest::array::uniform3(prop_oneof![0.0_f32..1.0, Just(f32::NAN)])), 0..40),
    ) {
        let boxes: Vec<f32> = rows.iter().flat_map(|(bbox, _)| *bbox).collect();
        let scores: Vec<f32> = rows.iter().flat_map(|(_, scores)| *scores).collect();
        let detector = detector(3);
        let found = detector.detect_row(&boxes, &scores, 3);
        prop_assert!(found.len() <= 10);
        prop_assert!(found.is_sorted_by(|a, b| a.confidence >= b.confidence));
        for (i, one) in found.iter().enumerate() {
            let [x_min, y_min, x_max, y_max] = one.bbox;
            prop_assert!(0.0 <= x_min && x_min < x_max && x_max <= 1.0 && 0.0 <= y_min && y_min < y_max && y_max <= 1.0);
            prop_assert!(one.confidence >= 0.5);
            for other in &found[..i] {
                prop_assert!(other.class_name != one.class_name || iou(other.bbox, one.bbox) <= 0.5);
            }
        }
    }

    #[test]
    fn suppression_is_the_one_of_its_definition(
        rows in proptest::collection::vec(((0_u8..20, 0_u8..20, 1_u8..20, 1_u8..20), 0.0_f32..1.0), 0..40),
    ) {
        let normalized = |&((x, y, width, height), _): &((u8, u8, u8, u8), f32)| {
            [x, y, x + width, y + height].map(|value| f32::from(value) / 40.0)
        };
        let boxes: Vec<[f32; 4]> = rows.iter().map(normalized).collect();
        let scores: Vec<f32> = rows.iter().map(|row| row.1).collect();
        let detector = Detector { box_format: BoxFormat::XyxyNormalized, ..detector(1) };
        let found = detector.detect_row(boxes.as_flattened(), &scores, 1);
        let found: Vec<f32> = found.iter().map(|found| found.confidence).collect();
        prop_assert_eq!(found, reference(&boxes, &scores, &detector));
    }
}
