//! NVIDIA's own clients, as they are published, against model-serving: tritonclient and perf_analyzer.

use crate::fixture::data_folder;
use crate::photo::{self, repository};
use crate::process::Process;
use crate::python;
use base64::Engine as _;
use convoy::ready_file::Addresses;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// What a script exits with when what it runs cannot be had on this machine: EX_UNAVAILABLE of sysexits.h.
const UNAVAILABLE: i32 = 69;

fn server() -> (Process, Addresses) {
    Process::ready(&[])
}

#[test]
fn tritonclient_finds_all_that_it_knows() {
    let (_server, addresses) = server();
    let (grpc, http) = (addresses.grpc.unwrap().to_string(), addresses.http.unwrap().to_string());
    let photo = photo::path();
    let Some(result) =
        python::run_with_tritonclient("triton_client.py", &[&grpc, &http, photo.to_str().unwrap()])
    else {
        return;
    };
    let statuses = [
        ("grpc", ["INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"]),
        ("http", ["400", "404", "504", "501"]),
    ];
    for (face, statuses) in statuses {
        check_inference(&result[face], face);
        check_refusals(&result[face]["refusals"], statuses);
        check_about(&result[face]["about"]);
    }
    let found = &result["grpc"]["rows"];
    assert_eq!(&result["http"]["rows"], found, "both faces answer the same");
    for form in ["True True", "True False", "False True", "False False"] {
        assert_eq!(&result["http"][format!("binary {form}")], found, "{form}");
    }
    assert_eq!(result["http"]["floats_are_exact"], true);
    let stream = result["grpc"]["stream"].as_array().unwrap();
    assert_eq!(stream.len(), 6);
    for (number, answer) in stream.iter().enumerate() {
        match number {
            2 => assert!(answer.as_str().unwrap().contains("no output `no-such`"), "{answer}"),
            _ => assert_eq!(*answer, number.to_string()),
        }
    }
}

fn check_inference(result: &Value, face: &str) {
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{face}");
    for row in rows {
        assert!(row.as_array().unwrap().contains(&json!("bus")), "{face}: {row}");
    }
    assert_eq!((&result["id"], &result["version"]), (&json!("one"), &json!("1")));
    assert_eq!(result["shapes"], json!({"boxes": [1, 1917, 4], "scores": [1, 1917, 80]}));
    assert_eq!(result["classes"].as_array().unwrap().len(), 3);
    assert_eq!(result["classes"][0], result["best"], "value:index, as Triton writes it");
    // Decoded by the server's own sandbox: other resampling, the same objects.
    let images = result["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|row| row[0] == "bus"), "{images:?}");
    assert_eq!(result["parameters"], "red", "parameters are echoed");
    for compression in ["gzip", "deflate"] {
        assert_eq!(result[compression], result["rows"], "{compression}");
    }
    let numbers: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(result["async"], json!(numbers));
    assert_eq!(result["aio"].as_array().unwrap().len(), 8);
}

fn check_refusals(refusals: &Value, [invalid, not_found, late, not_supported]: [&str; 4]) {
    for (call, status, part) in [
        ("bad_image", invalid, "Image 1 of input `images`"),
        ("no_model", not_found, "`no-such`"),
        ("no_output", invalid, "`no-such`"),
        ("shape", invalid, "[-1,300,300,3]"),
        ("timeout", late, "deadline"),
        ("sequence", invalid, "sequences are not supported"),
        ("shared_memory", not_supported, "Shared memory is not supported"),
        ("shared_memory_status", not_supported, "Shared memory is not supported"),
        ("cuda_shared_memory", not_supported, "CUDA shared memory is not supported"),
    ] {
        let (is, message) = (&refusals[call]["status"], refusals[call]["message"].as_str().unwrap());
        assert!(is.as_str().unwrap().ends_with(status), "{call}: {is} {message}");
        assert!(message.contains(part), "{call}: {message:?} does not say {part:?}");
    }
}

fn check_about(about: &Value) {
    for (what, expected) in [
        ("live", json!(true)),
        ("ready", json!(true)),
        ("model_ready", json!(true)),
        ("no_model_ready", json!(false)),
        ("server", json!("convoy")),
        ("inputs", json!([["images", "UINT8", [-1, 300, 300, 3]]])),
        ("outputs", json!([["boxes", "FP32", [-1, 1917, 4]], ["scores", "FP32", [-1, 1917, 80]]])),
        ("max_batch_size", json!(8)),
        ("index", json!("vehicle-detector")),
    ] {
        assert_eq!(about[what], expected, "{what}");
    }
    let (inferences, successes) =
        (about["inferences"].as_u64().unwrap(), about["successes"].as_u64().unwrap());
    assert!(inferences > successes && successes >= 15, "rows and requests: {about}");
}

#[test]
fn perf_analyzer_sweeps_from_1_to_64_without_an_error() {
    let setup = script(&["--setup"]);
    if setup.status.code() == Some(UNAVAILABLE) {
        python::skipped(text(&setup.stderr).trim());
        return;
    }
    assert!(setup.status.success(), "{}", text(&setup.stderr));

    let (_server, addresses) = server();
    let (grpc, http) = (addresses.grpc.unwrap().to_string(), addresses.http.unwrap().to_string());
    let folder = data_folder();
    let input = folder.path().join("input.json");
    let pixels: Vec<u8> = (0..300 * 300 * 3).map(|at| (at * 7 % 256) as u8).collect();
    let pixels = base64::engine::general_purpose::STANDARD.encode(pixels);
    std::fs::write(&input, json!({"data": [{"images": {"b64": pixels}}]}).to_string()).unwrap();

    let input = ["--input-data", input.to_str().unwrap()];
    let json = ["--input-tensor-format", "json", "--output-tensor-format", "json"];
    analyze("grpc", &grpc, ("1:64:21", &["1", "22", "43", "64"]), &input, folder.path());
    analyze("http", &http, ("1:64:21", &["1", "22", "43", "64"]), &input, folder.path());
    analyze("grpc", &grpc, ("8", &["8"]), &["--streaming", "--async"], folder.path());
    analyze("http", &http, ("4", &["4"]), &json, folder.path());
}

/// Runs it at each concurrency of a range, and looks at its report.
fn analyze(protocol: &str, address: &str, (range, levels): (&str, &[&str]), options: &[&str], folder: &Path) {
    let report = folder.join("report.csv");
    let mut arguments = vec!["-m", "vehicle-detector", "-i", protocol, "-u", address];
    arguments.extend(["--shape", "images:300,300,3", "--concurrency-range", range]);
    // Windows of a number of requests and not of a time, and any three of them will do: how fast and how steady they
    // are is nothing to test.
    arguments.extend([
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        "16",
        "-s",
        "900",
    ]);
    arguments.extend(["-f", report.to_str().unwrap()]);
    arguments.extend(options);
    let output = script(&arguments);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    let all = format!("{protocol} {options:?}: {}\n{said}\n{errors}", output.status);
    assert!(output.status.success(), "{all}");
    let csv = std::fs::read_to_string(report).unwrap();
    let (head, lines) = csv.split_once('\n').unwrap();
    let measured: Vec<&str> = lines.lines().filter_map(|line| line.split(',').next()).collect();
    assert!(levels.iter().all(|level| measured.contains(level)), "{levels:?} are not in {measured:?}: {all}");
    // It asks for these only of a server that offers statistics.
    assert!(head.contains("Server Compute Infer"), "{head}");
}

fn script(arguments: &[&str]) -> Output {
    Command::new(repository().join("scripts/perf-analyzer.sh")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
