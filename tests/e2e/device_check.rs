//! `convoy device-check` on the real binary, where there is no GPU.

use crate::fixture::onnxruntime_arguments;
use crate::photo;
use crate::process::{errors, run};
use serde_json::Value;
use std::ffi::OsString;

fn device_check(flags: &[&str]) -> std::process::Output {
    let mut arguments: Vec<OsString> = vec!["device-check".into(), "--model-path".into()];
    arguments.push(photo::repository().join("models").into());
    arguments.extend(["--photo".into(), photo::path().into()]);
    arguments.extend(onnxruntime_arguments());
    arguments.extend(flags.iter().map(OsString::from));
    run(arguments)
}

#[test]
fn the_cpu_is_measured_with_the_reason_why_it_is_no_gpu() {
    let output = device_check(&["--device=auto", "--batch-sizes=1,2", "--duration=200ms", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["requested"], &report["provider"]), (&"auto".into(), &"cpu".into()));
    let reason = report["fallback_reason"].as_str().unwrap();
    assert!(reason.contains("CUDA") || reason.contains("NVIDIA"), "{reason}");
    assert_eq!((&report["gpu"], &report["difference"]), (&Value::Null, &Value::Array(Vec::new())));
    assert!(report["session_threads"].as_u64().unwrap() >= 1, "{report}");
    assert_eq!(report["pairs"], Value::Null);
    let batches = report["batches"].as_array().unwrap();
    assert_eq!(batches.iter().map(|batch| batch["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for batch in batches {
        assert!(batch["images_per_s"].as_f64().unwrap() > 0.0, "{batch}");
        assert!(batch["p50_ms"].as_f64() <= batch["p99_ms"].as_f64(), "{batch}");
        assert_eq!(batch["copies"], Value::Null, "a CPU reads where it lies");
    }
    let served = &report["served"];
    assert_eq!(served["failed"], 0, "{served}");
    assert!(served["images_per_s"].as_f64().unwrap() > 0.0, "{served}");
}

#[test]
fn a_gpu_that_is_not_there_is_69_with_the_reason() {
    let output = device_check(&["--device=cuda:1"]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("cuda:1") && text.contains("CUDA"), "{text}");
}
