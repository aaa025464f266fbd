//! Detections as a table for a person.

use super::Seen;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

const HEADINGS: [&str; 6] = ["class", "confidence", "x_min", "y_min", "x_max", "y_max"];

/// One photo: a line about it, and a line for each thing that was found, with its box in pixels of the upright photo.
pub(super) fn table(photo: &Path, seen: &Seen) -> String {
    let mut text = format!("{}: {} x {} pixels", photo.display(), seen.width, seen.height);
    let field = |name: &str| seen.answer.fields.get(name).and_then(Value::as_str);
    if let (Some(model), Some(version)) = (field("model_name"), field("model_version")) {
        let _ = write!(text, ", {model} version {version}");
    }
    if let Some(time) = seen.answer.fields.get("inference_time_ms").and_then(Value::as_f64) {
        let _ = write!(text, ", {time:.1} ms");
    }
    text.push('\n');
    if seen.answer.detections.is_empty() {
        text.push_str("  nothing found\n");
    } else {
        rows(&mut text, seen);
    }
    if let Some(copy) = &seen.annotated {
        let _ = writeln!(text, "  annotated: {}", copy.display());
    }
    text
}

fn rows(text: &mut String, seen: &Seen) {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(seen.answer.detections.iter().map(|detection| {
        let [x_min, y_min, x_max, y_max] = detection.bbox.in_pixels(seen.width, seen.height);
        let edge = |pixels: u32| pixels.to_string();
        [
            detection.class_name.clone(),
            format!("{:.2}", detection.confidence),
            edge(x_min),
            edge(y_min),
            edge(x_max),
            edge(y_max),
        ]
    }));
    let widths: [usize; 6] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    for line in &lines {
        let _ = write!(text, "  {:<width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detect::client::{Answer, BoundingBox, Detection};
    use serde_json::json;

    fn seen(detections: Vec<Detection>) -> Seen {
        let fields =
            json!({"model_name": "vehicle-detector", "model_version": "1", "inference_time_ms": 14.25});
        let fields = fields.as_object().unwrap().clone();
        Seen { width: 546, height: 413, answer: Answer { fields, detections }, annotated: None }
    }

    #[test]
    fn boxes_are_in_pixels_and_columns_line_up() {
        let bus = Detection {
            class_name: "bus".to_owned(),
            confidence: 0.974,
            bbox: BoundingBox { x_min: 0.1099, y_min: 0.2978, x_max: 0.8828, y_max: 0.954 },
        };
        let car = Detection {
            class_name: "car".to_owned(),
            confidence: 0.8349,
            bbox: BoundingBox { x_min: 0.0, y_min: 0.69, x_max: 1.0, y_max: 1.0 },
        };
        let mut seen = seen(vec![bus, car]);
        seen.annotated = Some("out/bus.jpg".into());
        let expected = "\
photos/bus.jpg: 546 x 413 pixels, vehicle-detector version 1, 14.2 ms
  class  confidence  x_min  y_min  x_max  y_max
  bus          0.97     60    123    482    394
  car          0.83      0    285    546    413
  annotated: out/bus.jpg
";
        assert_eq!(table(Path::new("photos/bus.jpg"), &seen), expected);
    }

    #[test]
    fn an_empty_street_is_said_to_be_empty() {
        assert!(table(Path::new("a.png"), &seen(Vec::new())).ends_with("ms\n  nothing found\n"));
    }
}
