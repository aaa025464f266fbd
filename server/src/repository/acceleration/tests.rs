#![allow(clippy::unwrap_used)]

use super::*;
use crate::repository::config;
use crate::scheduler::InputSpec;
use crate::tensor::{DataType, TensorSpec};
use crate::test_logs::Log;
use std::path::Path;

fn read(text: &str) -> Result<Acceleration, String> {
    parse(&config::parse(Path::new("config.pbtxt"), text).unwrap().config)
}

fn accelerator(name: &str, parameters: &[(&str, &str)]) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(key, value)| format!("parameters {{ key: \"{key}\" value: \"{value}\" }} "))
        .collect();
    format!(
        "optimization {{ execution_accelerators {{ gpu_execution_accelerator: [ {{ name: \"{name}\" {parameters} }} ] }} }}"
    )
}

#[test]
fn without_a_word_every_default_is_set_and_tf32_is_off() {
    let acceleration = read("").unwrap();
    assert_eq!(acceleration, Acceleration::default());
    assert_eq!(acceleration.cuda["use_tf32"], "0");
    assert_eq!(acceleration.cuda["cudnn_conv_algo_search"], "EXHAUSTIVE");
    assert_eq!((acceleration.tensorrt, acceleration.cpu_nodes), (None, CpuNodes::Allowed));
}

#[test]
fn the_words_of_triton_become_options_of_onnx_runtime() {
    let cuda = accelerator(
        "cuda",
        &[
            ("cudnn_conv_algo_search", "1"),
            ("arena_extend_strategy", "kSameAsRequested"),
            ("cudnn_conv_use_max_workspace", "false"),
            ("gpu_mem_limit", "18446744073709551615"),
            ("do_copy_in_default_stream", "0"),
            ("use_tf32", "true"),
        ],
    );
    let options = read(&cuda).unwrap().cuda;
    let expected = [
        ("arena_extend_strategy", "kSameAsRequested"),
        ("cudnn_conv_algo_search", "HEURISTIC"),
        ("cudnn_conv_use_max_workspace", "0"),
        ("do_copy_in_default_stream", "0"),
        ("gpu_mem_limit", "18446744073709551615"),
        ("use_tf32", "1"),
    ];
    assert_eq!(options.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);

    let tensorrt = accelerator(
        "tensorrt",
        &[
            ("precision_mode", "FP16"),
            ("max_workspace_size_bytes", "4294967296"),
            ("trt_engine_cache_enable", "1"),
        ],
    );
    let options = read(&tensorrt).unwrap().tensorrt.unwrap();
    let expected = [
        ("trt_engine_cache_enable", "1"),
        ("trt_fp16_enable", "1"),
        ("trt_int8_enable", "0"),
        ("trt_max_workspace_size", "4294967296"),
    ];
    assert_eq!(options.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
    assert_eq!(read(&accelerator("tensorrt", &[])).unwrap().tensorrt.unwrap()["trt_fp16_enable"], "0");
}

#[test]
fn graph_levels_and_pinned_memory_are_those_of_triton() {
    for (level, graph) in [
        (-1, GraphOptimization::Basic),
        (0, GraphOptimization::All),
        (1, GraphOptimization::Extended),
        (2, GraphOptimization::Disabled),
    ] {
        assert_eq!(read(&format!("optimization {{ graph {{ level: {level} }} }}")).unwrap().graph, graph);
    }
    let pageable = read("optimization { input_pinned_memory { enable: false } }").unwrap();
    assert_eq!((pageable.pinned_inputs, pageable.pinned_outputs), (false, true));
}

#[test]
fn what_is_not_known_is_refused_with_what_is() {
    let of = |name: &str, key: &str, value: &str| accelerator(name, &[(key, value)]);
    let twice = "optimization { execution_accelerators { gpu_execution_accelerator: [ { name: \"cuda\" }, { name: \"cuda\" } ] } }";
    let openvino =
        "optimization { execution_accelerators { cpu_execution_accelerator: [ { name: \"openvino\" } ] } }";
    for (text, part) in [
        (of("cuda", "cudnn_conv_algo", "0"), "its parameters are arena_extend_strategy"),
        (of("cuda", "cudnn_conv_algo_search", "3"), "one of EXHAUSTIVE, HEURISTIC, DEFAULT"),
        (of("cuda", "use_tf32", "yes"), "1 or true"),
        (of("cuda", "gpu_mem_limit", "4GB"), "a whole number"),
        (of("cuda", "gpu_mem_limit", "-1"), "from 0 on"),
        (of("cuda", "device_id", "1"), "`gpus` of instance_group"),
        (of("cuda", "enable_cuda_graph", "1"), "CUDA graphs are not supported"),
        (of("tensorrt", "precision_mode", "BF16"), "FP32, FP16, INT8"),
        (of("tensorrt", "use_tf32", "1"), "of the accelerator tensorrt is unknown"),
        (of("tensorrt", "trt_engine_cache_path", " "), "must be there"),
        (of("auto_io", "a", "b"), "use cuda or tensorrt"),
        (twice.to_owned(), "given twice"),
        (openvino.to_owned(), "`openvino` is not supported"),
        ("optimization { graph { level: 3 } }".to_owned(), "can have -1"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn tensorrt_is_told_the_range_of_its_batches() {
    let signature = |dims: &[i64]| Signature {
        model: "m".into(),
        inputs: vec![InputSpec {
            tensor: TensorSpec { name: "x".into(), datatype: DataType::Fp32, dims: dims.to_vec() },
            pixels: None,
        }],
        outputs: Vec::new(),
        max_batch_size: 8,
    };
    let mut acceleration = read(&accelerator("tensorrt", &[])).unwrap();
    complete(&mut acceleration, &signature(&[3, 4]));
    let options = acceleration.tensorrt.unwrap();
    assert_eq!(options["trt_profile_min_shapes"], "x:1x3x4");
    assert_eq!(options["trt_profile_opt_shapes"], "x:8x3x4");
    assert_eq!(options["trt_profile_max_shapes"], "x:8x3x4");

    let mut acceleration = read(&accelerator("tensorrt", &[])).unwrap();
    complete(&mut acceleration, &signature(&[-1]));
    assert!(!acceleration.tensorrt.unwrap().contains_key("trt_profile_min_shapes"));
}

#[test]
fn nodes_that_compute_may_not_stay_on_the_cpu() {
    let nodes = |provider: &str, nodes, operators: &[&str]| ProviderNodes {
        provider: provider.to_owned(),
        nodes,
        operators: operators.iter().map(|&name| name.to_owned()).collect(),
    };
    let gpu = nodes("CUDAExecutionProvider", 90, &["Conv"]);
    assert_eq!(refuse_cpu_nodes(&[]), Ok(()), "nothing is known, which is said");
    assert_eq!(refuse_cpu_nodes(std::slice::from_ref(&gpu)), Ok(()));
    let shapes = nodes("CPUExecutionProvider", 3, &["Concat", "Gather", "Shape"]);
    assert_eq!(refuse_cpu_nodes(&[shapes, gpu.clone()]), Ok(()));
    let einsum = nodes("CPUExecutionProvider", 10, &["Einsum", "Shape"]);
    let error = refuse_cpu_nodes(&[einsum, gpu]).unwrap_err();
    assert!(error.starts_with("10 of its 100 nodes stay on the CPU"), "{error}");
    assert!(error.contains("(Einsum)") && error.contains("session.disable_cpu_ep_fallback"), "{error}");
    let all = nodes("CPUExecutionProvider", 5, &[]);
    assert!(refuse_cpu_nodes(&[all]).unwrap_err().contains("5 of its 5 nodes"));
}

#[test]
fn nodes_that_could_not_be_counted_are_said_with_what_is_not_kept() {
    let known =
        ProviderNodes { provider: "CUDAExecutionProvider".to_owned(), nodes: 1, operators: Vec::new() };
    let said = |nodes: &[ProviderNodes], allowed| {
        let log = Log::new();
        let collecting = log.collect();
        warn_of_uncounted("m", nodes, allowed);
        drop(collecting);
        log.lines().iter().map(|line| format!("{} {}", line["level"], line["fields"])).collect::<Vec<_>>()
    };
    assert!(said(&[known], CpuNodes::ShapesOnly).is_empty());
    for (allowed, refusal) in
        [(CpuNodes::ShapesOnly, true), (CpuNodes::Allowed, false), (CpuNodes::None, false)]
    {
        let [line] = &*said(&[], allowed) else { panic!("one line for {allowed:?}") };
        assert!(line.contains("WARN") && line.contains("could not be counted"), "{line}");
        assert_eq!(line.contains("is not refused"), refusal, "{allowed:?}: {line}");
    }
}
