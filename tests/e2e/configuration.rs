//! Exit codes of the real binary: wrong configuration, and what cannot start.

use crate::fixture::{data_folder, onnxruntime_arguments, up_arguments};
use crate::process::{errors, run};
use std::ffi::OsString;
use std::net::TcpListener;

/// `convoy up` with all it needs, and more flags. Of a flag given twice, clap would complain: `flag` replaces.
fn up_with(flag: &str, value: &str) -> Vec<OsString> {
    let folder = data_folder();
    let mut arguments = up_arguments(&folder.path().join("predictions.db"));
    match arguments.iter().position(|argument| argument == flag) {
        Some(place) => arguments[place + 1] = value.into(),
        None => arguments.extend([flag.into(), value.into()]),
    }
    arguments.insert(0, "up".into());
    arguments
}

/// Replaces the addresses by ones that are taken: a process that binds first ends with 69, and not with 64.
fn on_taken_ports(mut arguments: Vec<OsString>, taken: &[TcpListener]) -> Vec<OsString> {
    let addresses = arguments.iter_mut().filter(|argument| *argument == "127.0.0.1:0");
    for (address, listener) in addresses.zip(taken) {
        *address = listener.local_addr().unwrap().to_string().into();
    }
    arguments
}

#[test]
fn wrong_configuration_is_one_sentence_and_64_before_a_port_is_bound() {
    let taken: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let right = run(on_taken_ports(up_with("--log-level", "info"), &taken));
    assert_eq!(right.status.code(), Some(69), "the ports are taken: {}", errors(&right));
    let wrong = [
        ("--device", "gpu", "--device"),
        ("--model-path", "/no/such/models", "MODEL_PATH"),
        ("--db-path", "/", "DB_PATH"),
        ("--request-timeout", "0s", "--request-timeout"),
        ("--log-level", "loud", "--log-level"),
        ("--shutdown-delay", "31s", "SHUTDOWN_GRACE"),
        ("--preprocess-component", "/no/such/component.wasm", "PREPROCESS_COMPONENT"),
        ("--onnxruntime-lib", "/no/such/library.so", "ORT_DYLIB_PATH"),
        ("--ready-file", "/no/such/folder/ready.json", "READY_FILE"),
        ("--grpc-addr", "localhost", "--grpc-addr"),
        ("--no-such-flag", "x", "--no-such-flag"),
    ];
    for (flag, value, named) in wrong {
        let output = run(on_taken_ports(up_with(flag, value), &taken));
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(64), "{flag} {value}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("convoy: ") && text.contains(named), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_environment_variable_that_is_wrong_is_named() {
    let output = std::process::Command::new(crate::process::binary())
        .args(["results-service", "--results-addr", "127.0.0.1:0"])
        .env("SHUTDOWN_GRACE", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(errors(&output).contains("from the environment variable SHUTDOWN_GRACE"), "{}", errors(&output));
}

#[test]
fn two_faces_on_one_port_are_wrong_configuration() {
    let folder = data_folder();
    let mut arguments = up_arguments(&folder.path().join("predictions.db"));
    for flag in ["--http-addr", "--results-addr"] {
        let place = arguments.iter().position(|argument| argument == flag).unwrap();
        arguments[place + 1] = "127.0.0.1:1".into();
    }
    arguments.insert(0, "up".into());
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(64), "{}", errors(&output));
    assert!(errors(&output).contains("--http-addr") && errors(&output).contains("--results-addr"));
}

/// Switches are set by what people write into environments, not by `true` alone.
#[test]
fn a_switch_can_be_set_in_the_environment() {
    let photo = data_folder();
    std::fs::write(photo.path().join("a.jpg"), b"never sent").unwrap();
    for (value, lines) in [("1", 1), ("true", 1), ("0", 0), ("", 0)] {
        let output = std::process::Command::new(crate::process::binary())
            .args(["detect", "--server", "http://127.0.0.1:1"])
            .arg(photo.path())
            .env("CONVOY_JSON", value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{value:?}: {}", errors(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), lines, "{value:?}");
    }
}

#[test]
fn a_component_that_is_none_is_wrong_configuration() {
    let folder = data_folder();
    let component = folder.path().join("component.wasm");
    std::fs::write(&component, b"no component").unwrap();
    let output = run(up_with("--preprocess-component", component.to_str().unwrap()));
    assert_eq!(output.status.code(), Some(64), "{}", errors(&output));
}

#[test]
fn an_address_in_use_is_69_and_named() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for flag in ["--grpc-addr", "--feature-addr", "--results-addr"] {
        let output = run(up_with(flag, &taken));
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(text.contains(&taken) && text.contains(flag), "{text}");
    }
}

/// The library that set-up installs is the CPU's, on every machine.
#[test]
fn cuda_without_cuda_is_69() {
    assert!(
        !onnxruntime_arguments().is_empty(),
        "run scripts/setup-onnxruntime.sh, and unset ORT_DYLIB_PATH"
    );
    let output = run(up_with("--device", "cuda"));
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("CUDA"), "{text}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [vec!["--help"], vec!["--version"], vec!["up", "--help"], vec!["detect", "--help"]] {
        let output = run(arguments.clone());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    let help = run(["up", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for text in ["127.0.0.1:50051", "GRPC_ADDR", "DB_PATH", "SHUTDOWN_GRACE", "Exit codes"] {
        assert!(help.contains(text), "{text} is not in:\n{help}");
    }
    assert!(!help.contains("0.0.0.0:"), "{help}");
}
