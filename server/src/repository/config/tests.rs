#![allow(clippy::unwrap_used)]

use super::*;
use crate::test_logs;

fn parse_text(text: &str) -> Result<WrittenConfig, String> {
    parse(Path::new("m/config.pbtxt"), text).map_err(|error| error.to_string())
}

#[test]
fn text_protobuf_is_read_and_an_explicit_zero_is_told_from_none() {
    let config = parse_text("# a comment\nname: \"m\" input [ { name: \"x\" dims: [ 3, -1 ] } ]").unwrap();
    assert_eq!(config.config.input[0].dims, [3, -1]);
    assert!(!config.has_max_batch_size);
    assert!(parse_text("max_batch_size: 0").unwrap().has_max_batch_size);
    assert!(parse_text("name: \"m\"\nmax_batch_size: 4").unwrap().has_max_batch_size);
    assert!(!parse_text("# max_batch_size: 0").unwrap().has_max_batch_size);
}

#[test]
fn the_colon_before_a_list_may_be_left_out_as_tritons_own_examples_do() {
    let config = parse_text(
        "input [ { name: \"a [\" dims: [ 1 ] } ]\noutput\n# with a [ here\n[ { name: 'b\\' [' dims [ 2, 3 ] } ]",
    )
    .unwrap();
    assert_eq!((&*config.config.input[0].name, &*config.config.input[0].dims), ("a [", &[1][..]));
    assert_eq!((&*config.config.output[0].name, &*config.config.output[0].dims), ("b' [", &[2, 3][..]));
}

#[test]
fn errors_name_the_file_and_the_line() {
    for (text, line, part) in [
        ("name: \"m\"\nmax_batch: 8\n", 2, "max_batch"),
        ("name: \"m\"\ninput [ {\n  data_type: FLOAT\n} ]\n", 3, "FLOAT"),
        ("name: \"m\"\nname: \"n\"\n", 2, "already set"),
        ("name: \"m\"\ninput [ {\n", 3, "end of input"),
        ("name: ?", 1, "invalid token"),
    ] {
        let error = parse_text(text).unwrap_err();
        assert!(error.starts_with(&format!("m/config.pbtxt:{line}: ")), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    for (text, part) in [
        ("platform: \"tensorrt_plan\"", "platform `tensorrt_plan`"),
        ("backend: \"python\"", "backend `python`"),
        ("sequence_batching { }", "sequence_batching"),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
        ("input [ { name: \"x\" reshape { shape: [ 1 ] } } ]", "reshape of `x`"),
        ("output [ { name: \"y\" is_shape_tensor: true } ]", "is_shape_tensor of `y`"),
        ("input [ { name: \"x\" allow_ragged_batch: true } ]", "allow_ragged_batch"),
        ("input [ { name: \"x\" optional: true } ]", "optional of input `x`"),
        ("batch_input [ { target_name: \"x\" } ]", "batch_input"),
        ("model_operations { op_library_filename: \"x.so\" }", "model_operations"),
    ] {
        let error = parse_text(text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert!(parse_text("dynamic_batching { }").is_ok());
}

#[test]
fn json_is_read_as_triton_clients_write_it() {
    let config = parse_json(
        r#"{"name": "m", "max_batch_size": 4, "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3, "224"]}],
            "dynamicBatching": {"defaultQueuePolicy": {"maxQueueSize": 9}},
            "parameters": {"task": {"string_value": "none"}}}"#,
    )
    .unwrap();
    assert!(config.has_max_batch_size);
    assert_eq!((config.config.max_batch_size, config.config.instance_group[0].count), (4, 2));
    assert_eq!(config.config.input[0].dims, [3, 224]);
    assert_eq!(config.config.parameters["task"].string_value, "none");
    assert!(!parse_json("{}").unwrap().has_max_batch_size);
    for (text, part) in [
        ("", "EOF"),
        ("[]", "expected a map"),
        (r#"{"max_batch": 1}"#, "max_batch"),
        (r#"{"platform": "x"}"#, "platform `x`"),
    ] {
        let error = parse_json(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_has_no_effect_is_warned_of_once_and_named() {
    let text = "runtime: \"libonnx.so\" input [ { name: \"x\" is_non_linear_format_io: true } ]
        output [ { name: \"y\" is_non_linear_format_io: true } ] optimization { priority: PRIORITY_MAX }
        instance_group [ { name: \"a\" rate_limiter { priority: 2 } }, { profile: [ \"1\" ] host_policy: \"p\" } ]";
    let config = parse_text(text).unwrap().config;
    assert_eq!(
        unused(&config),
        [
            "optimization.priority",
            "runtime",
            "is_non_linear_format_io",
            "instance_group.rate_limiter",
            "instance_group.profile",
            "instance_group.host_policy"
        ]
    );
    assert_eq!(test_logs::levels(|| drop(parse_text(text).unwrap())), ["WARN"]);
    assert_eq!(test_logs::levels(|| drop(parse_json(r#"{"runtime": "x"}"#).unwrap())), ["WARN"]);
    let used = "instance_group [ { name: \"a\" count: 2 } ] input [ { name: \"x\" dims: [ 1 ] } ]";
    assert!(test_logs::levels(|| drop(parse_text(used).unwrap())).is_empty());
}
