#![allow(clippy::unwrap_used)]

use super::*;
use clap::{CommandFactory as _, Parser};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

fn parse(arguments: &[&str]) -> Config {
    let mut all = vec!["test", "--model-path", env!("CARGO_MANIFEST_DIR")];
    all.extend(arguments);
    Cli::try_parse_from(all).unwrap().config
}

#[test]
fn every_flag_has_a_variable_and_a_help_text() {
    for argument in Cli::command().get_arguments().filter(|a| a.get_id() != "help") {
        assert!(argument.get_env().is_some(), "{} has no variable", argument.get_id());
        assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
    }
}

#[test]
fn a_repository_and_free_ports_are_valid() {
    let zero = ["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0"];
    assert_eq!(parse(&zero).validate(), Ok(()));
    assert_eq!(parse(&[]).validate(), Ok(()));
}

#[test]
fn what_cannot_work_is_said_in_a_sentence() {
    let mut config = parse(&[]);
    config.model_path = "/no/such/folder".into();
    let error = config.validate().unwrap_err();
    assert_eq!(error, ConfigError::NoModelPath("/no/such/folder".into()));
    assert!(error.to_string().contains("MODEL_PATH"));

    let not_a_model = tempfile::NamedTempFile::with_suffix(".txt").unwrap();
    config.model_path = not_a_model.path().to_owned();
    assert_eq!(config.validate(), Err(ConfigError::NotAModel(not_a_model.path().to_owned())));

    let same = parse(&["--http-addr=127.0.0.1:8002", "--metrics-addr=127.0.0.1:8002"]);
    assert_eq!(same.validate(), Err(ConfigError::SameAddress("127.0.0.1:8002".parse().unwrap())));
    // One interface, and all of them.
    let same = parse(&["--grpc-addr=127.0.0.1:8000"]);
    assert_eq!(same.validate(), Err(ConfigError::SameAddress("0.0.0.0:8000".parse().unwrap())));
    let other = parse(&["--grpc-addr=127.0.0.1:9000", "--http-addr=127.0.0.2:9000"]);
    assert_eq!(other.validate(), Ok(()));
    assert_eq!(parse(&["--audit-key=short"]).validate(), Err(ConfigError::ShortAuditKey));
    assert_eq!(parse(&["--default-model="]).validate(), Err(ConfigError::EmptyDefaultModel));
    let library = parse(&["--onnxruntime-lib=/no/such/file.so"]);
    assert_eq!(library.validate(), Err(ConfigError::NoOnnxRuntime("/no/such/file.so".into())));
}

#[test]
fn the_key_does_not_show() {
    let config = parse(&["--audit-key=correct horse battery"]);
    assert!(!format!("{config:?}").contains("horse"));
}

#[test]
fn limits_have_the_documented_defaults() {
    let config = parse(&[]);
    assert_eq!(config.slo.limit(), Some(Duration::from_secs(1)));
    assert_eq!(config.max_inflight_bytes.get(), 1 << 30);
    assert_eq!(config.body_timeout.limit(), Some(Duration::from_secs(10)));
    assert_eq!(config.answer_timeout.limit(), Some(Duration::from_secs(60)));
    assert_eq!(config.profile_time, Duration::from_secs(3));
    assert_eq!(config.default_max_batch_size, 8);
    let repository = config.repository();
    assert_eq!((repository.slo, repository.profile_time), (config.slo.limit(), config.profile_time));
}

#[test]
fn measured_latencies_are_kept_in_the_folder_that_is_given_or_nowhere() {
    let folder = |arguments: &[&str]| parse(arguments).repository().profile_cache;
    assert_eq!(folder(&["--profile-cache=/var/cache/convoy"]), Some("/var/cache/convoy".into()));
    assert_eq!(folder(&["--profile-cache=none"]), None);
    assert!(folder(&[]).is_none_or(|default| default.ends_with("convoy")));
}

#[test]
fn limits_are_read_and_checked() {
    let config = parse(&["--slo=100ms", "--max-inflight-bytes=512MiB", "--profile-time=500ms"]);
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.repository().slo, Some(Duration::from_millis(100)));
    assert_eq!(config.max_inflight_bytes.get(), 512 << 20);
    assert_eq!(parse(&["--slo=none"]).repository().slo, None);
    let patient = parse(&["--body-timeout=none"]);
    assert_eq!((patient.validate(), patient.body_timeout.limit()), (Ok(()), None));
    for (argument, sentence) in [
        ("--slo=0s", "--slo"),
        ("--slo=48h", "--slo"),
        ("--profile-time=0s", "--profile-time"),
        ("--profile-time=2h", "--profile-time"),
        ("--max-inflight-bytes=1000", "--max-inflight-bytes"),
        ("--body-timeout=0s", "--body-timeout"),
        ("--body-timeout=48h", "--body-timeout"),
        ("--answer-timeout=1ms", "--answer-timeout"),
    ] {
        let error = parse(&[argument]).validate().unwrap_err();
        assert!(matches!(error, ConfigError::OutOfRange { .. }), "{argument}: {error}");
        assert!(error.to_string().contains(sentence), "{error}");
    }
    for argument in ["--slo=100", "--slo=soon", "--max-inflight-bytes=-1", "--max-inflight-bytes=1 parsec"] {
        let parsed = Cli::try_parse_from(["test", argument]);
        assert!(parsed.is_err(), "{argument}");
    }
}
