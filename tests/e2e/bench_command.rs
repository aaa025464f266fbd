//! `convoy bench` on the real binary: a short run has every figure in it.

use crate::fixture::onnxruntime_arguments;
use crate::photo;
use crate::process::{errors, run};
use serde_json::Value;
use std::ffi::OsString;

#[test]
fn a_short_run_reports_raw_sessions_and_the_server_under_every_load() {
    let mut arguments: Vec<OsString> =
        ["bench", "--device", "cpu", "--model-path"].map(OsString::from).to_vec();
    arguments.push(photo::repository().join("models").into());
    arguments.extend(onnxruntime_arguments());
    arguments.extend(["--photo".into(), photo::path().into()]);
    let short = [
        "--duration=1s",
        "--rounds=1",
        "--concurrency=1,4",
        "--open-loop=2x,20",
        "--profile-time=200ms",
        "--profile-cache=none",
    ];
    arguments.extend(short.map(OsString::from));
    arguments.push("--json".into());
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"], "vehicle-detector");
    assert_eq!(report["datatype"], "UINT8 [1,300,300,3]");
    let loads = |part: &str| -> Vec<&str> {
        report[part].as_array().unwrap().iter().map(|row| row["load"].as_str().unwrap()).collect()
    };
    assert_eq!(loads("closed"), ["1", "4"]);
    assert_eq!(loads("open"), ["2x", "20/s"]);
    for row in report["raw"].as_array().unwrap() {
        assert_eq!(row["rounds"].as_array().unwrap().len(), 1);
    }
    assert!(report["raw"].as_array().unwrap().iter().any(|row| row["images_per_s"].as_f64().unwrap() > 0.0));
    for row in ["closed", "open"].iter().flat_map(|part| report[*part].as_array().unwrap()) {
        assert_eq!(row["failed"], 0, "{row}");
        assert_eq!(row["rounds"].as_array().unwrap().len(), 1);
    }
    let lone = &report["closed"][0];
    assert!(lone["answered_per_s"].as_f64().unwrap() > 0.0, "{lone}");
}
