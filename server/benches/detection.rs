//! What it costs to make detections of a detector's outputs: thresholds and non-maximum suppression.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model_serving::detection::{BoxFormat, Detector};

const BOXES: usize = 3234;
const CLASSES: usize = 91;

/// Three classes of 91, as the vehicle detector keeps.
fn detector() -> Detector {
    Detector {
        boxes_output: "boxes".into(),
        scores_output: "scores".into(),
        box_format: BoxFormat::XyxyPixels,
        size: (300.0, 300.0),
        classes: vec![(3, "car".into()), (6, "bus".into()), (8, "truck".into())],
        score_threshold: 0.35,
        iou_threshold: 0.5,
        max_detections: 100,
    }
}

/// Boxes of 60 by 40 pixels all over the image, of which `candidates` of each class are over the threshold.
fn outputs(candidates: usize) -> (Vec<f32>, Vec<f32>) {
    let corner = |at: usize| ((at * 37 % 240) as f32, (at * 61 % 260) as f32);
    let boxes = (0..BOXES).flat_map(|at| {
        let (x, y) = corner(at);
        [x, y, x + 60.0, y + 40.0]
    });
    let every = BOXES / candidates.max(1);
    let scores = (0..BOXES).flat_map(|at| {
        let hit = candidates > 0 && at % every == 0;
        (0..CLASSES).map(move |class| if hit { 0.4 + 0.5 * ((at + class) % 97) as f32 / 97.0 } else { 0.01 })
    });
    (boxes.collect(), scores.collect())
}

fn suppression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("detections");
    group.throughput(Throughput::Elements(BOXES as u64));
    for candidates in [0, 20, 300] {
        group.bench_function(BenchmarkId::new("candidates a class", candidates), |bencher| {
            let (detector, (boxes, scores)) = (detector(), outputs(candidates));
            bencher.iter(|| black_box(detector.detect_row(&boxes, &scores, CLASSES)));
        });
    }
    group.finish();
}

criterion_group!(benches, suppression);
criterion_main!(benches);
