//! What the detector finds in a large photo is the same whether it is decoded at a fraction of its size or whole.

use crate::fixture::{data_folder, unique, up_arguments_of};
use crate::photo::{self, Detection, assert_detections, iou, repository};
use crate::process::Process;
use crate::rest::{self, with_query};
use reqwest::Method;
use std::fs;

/// Boxes that overlap this much are the same.
const LEAST_IOU: f64 = 0.9;

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_and_a_full_decode_give_the_same_detections() {
    let folder = data_folder();
    let detector = repository().join("models/vehicle-detector");
    let config = fs::read_to_string(detector.join("config.pbtxt")).unwrap();
    let full = format!("{config}\nparameters {{ key: \"decode\" value {{ string_value: \"full\" }} }}\n");
    for (name, config) in [("vehicle-detector", config), ("full", full)] {
        let model = folder.path().join("models").join(name);
        fs::create_dir_all(model.join("1")).unwrap();
        for file in ["1/model.onnx", "labels.txt"] {
            fs::copy(detector.join(file), model.join(file)).unwrap();
        }
        fs::write(model.join("config.pbtxt"), config.replace("\"vehicle-detector\"", &format!("\"{name}\"")))
            .unwrap();
    }
    let mut arguments = up_arguments_of(&folder.path().join("models"), &folder.path().join("predictions.db"));
    arguments.push("--default-model=vehicle-detector".into());
    let mut process = Process::start("up", arguments, folder);
    let base = format!("http://{}/predict", process.wait_ready().feature.unwrap());

    let photo = photo::enlarged();
    let detect = async |model: &str| -> Vec<Detection> {
        let url = with_query(base.clone(), &[("model", model), ("user_id", &unique("scaled"))]);
        let answer = rest::send(Method::POST, url, Some("image/jpeg"), photo.clone()).await.json(200);
        rest::detections(&answer)
    };
    let (scaled, full) = (detect("vehicle-detector").await, detect("full").await);
    // The model's threshold is 0.35: these are all that it reports.
    assert_detections(&scaled);
    assert_eq!(scaled.len(), full.len(), "{scaled:#?} and {full:#?}");
    for found in &scaled {
        let has_pair = full
            .iter()
            .any(|other| other.class_name == found.class_name && iou(other.bbox, found.bbox) >= LEAST_IOU);
        assert!(has_pair, "{found:?} is not in {full:#?}");
    }
    // They are not the same tensor: the parameter does something.
    assert_ne!(scaled, full);
}
