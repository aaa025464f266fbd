#![allow(clippy::unwrap_used)]

use super::*;

/// The table of the documentation: subcommand, flag, variable, default.
const DOCUMENTED: [(&str, &str, &str, Option<&str>); 46] = [
    ("model-serving", "grpc-addr", "GRPC_ADDR", Some("0.0.0.0:50051")),
    ("model-serving", "http-addr", "HTTP_ADDR", Some("0.0.0.0:8000")),
    ("model-serving", "metrics-addr", "METRICS_ADDR", Some("0.0.0.0:8002")),
    ("model-serving", "model-path", "MODEL_PATH", Some("models")),
    ("model-serving", "model-control-mode", "MODEL_CONTROL_MODE", Some("none")),
    ("model-serving", "load-model", "LOAD_MODEL", None),
    ("model-serving", "strict-readiness", "STRICT_READINESS", Some("true")),
    ("model-serving", "device", "DEVICE", Some("auto")),
    ("model-serving", "slo", "LATENCY_SLO", Some("1s")),
    ("model-serving", "max-inflight-bytes", "MAX_INFLIGHT_BYTES", Some("1GiB")),
    ("model-serving", "body-timeout", "BODY_TIMEOUT", Some("10s")),
    ("model-serving", "answer-timeout", "ANSWER_TIMEOUT", Some("60s")),
    ("model-serving", "profile-time", "PROFILE_TIME", Some("3s")),
    ("model-serving", "profile-cache", "PROFILE_CACHE", None),
    ("model-serving", "default-max-batch-size", "DEFAULT_MAX_BATCH_SIZE", Some("8")),
    ("model-serving", "preprocess-component", "PREPROCESS_COMPONENT", None),
    ("model-serving", "sandbox-workers", "SANDBOX_WORKERS", None),
    ("model-serving", "sandbox-memory", "SANDBOX_MEMORY", Some("512MiB")),
    ("model-serving", "sandbox-timeout", "SANDBOX_TIMEOUT", Some("5s")),
    ("model-serving", "max-pixels", "MAX_PIXELS", Some("50000000")),
    ("model-serving", "max-image-bytes", "MAX_IMAGE_BYTES", Some("32MiB")),
    ("feature-service", "feature-addr", "FEATURE_ADDR", Some("0.0.0.0:5001")),
    ("feature-service", "model-serving-url", "MODEL_SERVING_URL", Some("http://localhost:50051")),
    ("feature-service", "results-url", "RESULTS_URL", Some("http://localhost:5002")),
    ("feature-service", "request-timeout", "REQUEST_TIMEOUT", Some("30s")),
    ("feature-service", "max-image-bytes", "MAX_IMAGE_BYTES", Some("32MiB")),
    ("feature-service", "preprocess-component", "PREPROCESS_COMPONENT", None),
    ("results-service", "results-addr", "RESULTS_ADDR", Some("0.0.0.0:5002")),
    ("results-service", "admin-addr", "ADMIN_ADDR", Some("127.0.0.1:5003")),
    ("results-service", "db-path", "DB_PATH", Some("data/predictions.db")),
    ("results-service", "erasures", "ERASURES", None),
    ("results-service", "erasure-key-file", "ERASURE_KEY_FILE", None),
    ("results-service", "retain", "RETAIN", None),
    ("results-service", "backup-dir", "BACKUP_DIR", None),
    ("results-service", "log-level", "LOG_LEVEL", Some("info")),
    ("results-service", "log-format", "LOG_FORMAT", None),
    ("results-service", "shutdown-delay", "SHUTDOWN_DELAY", Some("0s")),
    ("results-service", "shutdown-grace", "SHUTDOWN_GRACE", Some("30s")),
    ("results-service", "ready-file", "READY_FILE", None),
    ("up", "grpc-addr", "GRPC_ADDR", Some("127.0.0.1:50051")),
    ("up", "http-addr", "HTTP_ADDR", Some("127.0.0.1:8000")),
    ("up", "metrics-addr", "METRICS_ADDR", Some("127.0.0.1:8002")),
    ("up", "feature-addr", "FEATURE_ADDR", Some("127.0.0.1:5001")),
    ("up", "results-addr", "RESULTS_ADDR", Some("127.0.0.1:5002")),
    ("up", "admin-addr", "ADMIN_ADDR", Some("127.0.0.1:5003")),
    ("up", "max-image-bytes", "MAX_IMAGE_BYTES", Some("32MiB")),
];

fn arg<'a>(command: &'a clap::Command, subcommand: &str, flag: &str) -> &'a clap::Arg {
    let subcommand = command.find_subcommand(subcommand).unwrap();
    subcommand
        .get_arguments()
        .find(|arg| arg.get_long() == Some(flag))
        .unwrap_or_else(|| panic!("no --{flag}"))
}

/// Reads a command line as the program does. The variables of the flags are set on no machine that runs tests.
fn read(line: &str) -> Result<Option<Cli>, Failure> {
    Cli::read(line.split_whitespace().map(OsString::from))
}

fn sentence_of(line: &str) -> String {
    match read(line) {
        Err(failure @ Failure::Usage(_)) => {
            assert_eq!(failure.code(), 64);
            failure.to_string()
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_command_is_well_formed() {
    command().debug_assert();
}

#[test]
fn flags_variables_and_defaults_are_the_documented_ones() {
    let command = command();
    for (subcommand, flag, variable, default) in DOCUMENTED {
        let arg = arg(&command, subcommand, flag);
        assert_eq!(arg.get_env().unwrap(), variable, "{subcommand} --{flag}");
        let value = arg.get_default_values().first().map(|value| value.to_str().unwrap());
        assert_eq!(value, default, "{subcommand} --{flag}");
    }
}

#[test]
fn every_flag_has_a_variable_and_help() {
    for subcommand in command().get_subcommands() {
        for arg in subcommand.get_arguments().filter(|arg| arg.get_long().is_some() && !arg.is_hide_set()) {
            let name = format!("{} {arg}", subcommand.get_name());
            if !["help", "version"].contains(&arg.get_id().as_str()) {
                assert!(arg.get_env().is_some(), "{name} has no environment variable");
            }
            assert!(arg.get_help().is_some(), "{name} has no help");
        }
    }
}

#[test]
fn up_has_all_flags_of_the_single_services() {
    let command = command();
    let longs = |name: &str| {
        let subcommand = command.find_subcommand(name).unwrap();
        subcommand.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect::<Vec<_>>()
    };
    let up = longs("up");
    for service in ["model-serving", "feature-service", "results-service"] {
        for long in longs(service) {
            assert!(up.contains(&long), "up has no --{long} of {service}");
        }
    }
}

#[test]
fn a_wrong_value_is_one_sentence_with_the_flag_and_what_is_allowed() {
    let text = sentence_of("convoy up --device gpu");
    assert!(text.starts_with("Invalid value 'gpu' for '--device"), "{text}");
    assert!(["auto", "cpu", "cuda"].iter().all(|device| text.contains(device)), "{text}");
    assert!(text.ends_with("`convoy up --help` explains every flag."), "{text}");
    assert!(!text.contains('\n') && !text.contains("Usage:"), "{text}");

    let text = sentence_of("convoy results-service --shutdown-delay 2");
    assert!(text.contains("--shutdown-delay") && text.contains("such as 500ms, 2s"), "{text}");
    let text = sentence_of("convoy model-serving --grpc-adr 127.0.0.1:1");
    assert!(text.contains("--grpc-adr") && text.contains("--grpc-addr"), "{text}");
    let text = sentence_of("convoy up --models m");
    assert!(text.contains("'--models'") && !text.contains("--model-serving-url"), "{text}");
    assert!(sentence_of("convoy serve").contains("'serve'"));
    assert!(sentence_of("convoy").contains("`convoy up`"));
    assert!(sentence_of("convoy detect").contains("<PHOTO>"));
}

#[test]
fn up_refuses_to_be_told_where_its_own_parts_are() {
    let text = sentence_of("convoy up --results-url http://127.0.0.1:1");
    assert!(text.contains("--results-url") && text.contains("results-service itself"), "{text}");
    assert!(read("convoy feature-service --results-url http://127.0.0.1:1").unwrap().is_some());
}

#[test]
fn the_largest_image_has_a_size_with_or_without_a_unit() {
    for (bytes, valid) in [("16MiB", true), ("1", true), ("1GiB", true), ("0", false), ("2GiB", false)] {
        for service in ["model-serving", "feature-service", "up"] {
            let line = format!("convoy {service} --max-image-bytes {bytes}");
            let validated = match read(&line).unwrap().unwrap().command {
                Command::ModelServing(args) => crate::supervise::Program::validate(&*args),
                Command::FeatureService(args) => crate::supervise::Program::validate(&*args),
                Command::Up(args) => crate::supervise::Program::validate(&*args),
                other => panic!("{other:?}"),
            };
            let about_it =
                validated.err().is_some_and(|failure| failure.to_string().contains("--max-image-bytes"));
            assert_eq!(about_it, !valid, "{line}");
        }
    }
    assert!(sentence_of("convoy up --max-image-bytes many").contains("such as 512MiB"));
}

#[test]
fn the_delay_must_leave_time_to_stop() {
    let Some(Cli { command: Command::ResultsService(args) }) =
        read("convoy results-service --shutdown-delay 30s --shutdown-grace 30s").unwrap()
    else {
        panic!("another command")
    };
    let failure = crate::supervise::Program::process(&*args).validate().unwrap_err();
    assert!(failure.to_string().contains("SHUTDOWN_GRACE"), "{failure}");
    assert_eq!(failure.code(), 64);
}
