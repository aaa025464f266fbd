//! `optimization` of a model's configuration, in Triton's words: graph optimizations, accelerators, pinned memory.
//!
//! The accelerators and their parameters are those of Triton's ONNX Runtime backend (`cuda` and `tensorrt`). What is not
//! known is refused when the model is loaded, so that a slip of the pen does not leave a model slow without a word.

use std::collections::BTreeMap;

use convoy_proto::inference::model_optimization_policy::execution_accelerators::Accelerator;
use convoy_proto::inference::{ModelConfig, ModelOptimizationPolicy};

use crate::backend::{Acceleration, CpuNodes, GraphOptimization, ProviderNodes};
use crate::scheduler::Signature;

/// What a parameter's value is.
#[derive(Clone, Copy)]
enum Value {
    /// `1` or `true`, `0` or `false`.
    Switch,
    /// A whole number from 0 on.
    Number,
    /// A whole number, or -1 to leave it to TensorRT.
    NumberOrOwn,
    /// One of these words, or their position, which Triton's older configurations give.
    Word(&'static [&'static str]),
    /// Anything that is not empty.
    Text,
}

/// Parameters of `cuda` are ONNX Runtime's options of the same names.
const CUDA: [(&str, Value); 13] = [
    ("arena_extend_strategy", Value::Word(&["kNextPowerOfTwo", "kSameAsRequested"])),
    ("cudnn_conv1d_pad_to_nc1d", Value::Switch),
    ("cudnn_conv_algo_search", Value::Word(&["EXHAUSTIVE", "HEURISTIC", "DEFAULT"])),
    ("cudnn_conv_use_max_workspace", Value::Switch),
    ("do_copy_in_default_stream", Value::Switch),
    ("enable_skip_layer_norm_strict_mode", Value::Switch),
    ("fuse_conv_bias", Value::Switch),
    ("gpu_mem_limit", Value::Number),
    ("prefer_nhwc", Value::Switch),
    ("sdpa_kernel", Value::Number),
    ("tunable_op_enable", Value::Switch),
    ("use_ep_level_unified_stream", Value::Switch),
    ("use_tf32", Value::Switch),
];

/// Parameters of `tensorrt` with ONNX Runtime's names for them; `precision_mode` comes besides.
const TENSORRT: [(&str, &str, Value); 27] = [
    ("max_workspace_size_bytes", "trt_max_workspace_size", Value::Number),
    ("trt_max_partition_iterations", "trt_max_partition_iterations", Value::Number),
    ("trt_min_subgraph_size", "trt_min_subgraph_size", Value::Number),
    ("int8_calibration_table_name", "trt_int8_calibration_table_name", Value::Text),
    ("int8_use_native_calibration_table", "trt_int8_use_native_calibration_table", Value::Switch),
    ("trt_dla_enable", "trt_dla_enable", Value::Switch),
    ("trt_dla_core", "trt_dla_core", Value::Number),
    ("trt_engine_cache_enable", "trt_engine_cache_enable", Value::Switch),
    ("trt_engine_cache_path", "trt_engine_cache_path", Value::Text),
    ("trt_engine_cache_prefix", "trt_engine_cache_prefix", Value::Text),
    ("trt_dump_subgraphs", "trt_dump_subgraphs", Value::Switch),
    ("trt_force_sequential_engine_build", "trt_force_sequential_engine_build", Value::Switch),
    ("trt_context_memory_sharing_enable", "trt_context_memory_sharing_enable", Value::Switch),
    ("trt_layer_norm_fp32_fallback", "trt_layer_norm_fp32_fallback", Value::Switch),
    ("trt_timing_cache_enable", "trt_timing_cache_enable", Value::Switch),
    ("trt_timing_cache_path", "trt_timing_cache_path", Value::Text),
    ("trt_force_timing_cache", "trt_force_timing_cache", Value::Switch),
    ("trt_detailed_build_log", "trt_detailed_build_log", Value::Switch),
    ("trt_build_heuristics_enable", "trt_build_heuristics_enable", Value::Switch),
    ("trt_sparsity_enable", "trt_sparsity_enable", Value::Switch),
    ("trt_builder_optimization_level", "trt_builder_optimization_level", Value::Number),
    ("trt_auxiliary_streams", "trt_auxiliary_streams", Value::NumberOrOwn),
    ("trt_tactic_sources", "trt_tactic_sources", Value::Text),
    ("trt_extra_plugin_lib_paths", "trt_extra_plugin_lib_paths", Value::Text),
    ("trt_profile_min_shapes", "trt_profile_min_shapes", Value::Text),
    ("trt_profile_max_shapes", "trt_profile_max_shapes", Value::Text),
    ("trt_profile_opt_shapes", "trt_profile_opt_shapes", Value::Text),
];
const PRECISION: &str = "precision_mode";
/// TensorRT's scratch memory where nothing is said of it, as Triton has it.
const WORKSPACE_BYTES: &str = "1073741824";

/// A graph is replayed with the addresses that it was captured with, and each size would need a graph of its own.
const NO_GRAPHS: &str =
    "CUDA graphs are not supported yet: each batch is bound to other memory, and a graph keeps its own";

/// What there is no way to do here, with the reason.
const REFUSED: [(&str, &str); 3] = [
    ("device_id", "say it with `gpus` of instance_group, or the parameter `device_id` of the model"),
    ("enable_cuda_graph", NO_GRAPHS),
    ("trt_cuda_graph_enable", NO_GRAPHS),
];

/// Operators of which ONNX Runtime keeps those on the CPU that reckon with shapes (`GetCpuPreferredNodes` in its
/// `fallback_cpu_capability.cc`): they take and give a few integers. Each has a kernel for tensors on a GPU, too, so
/// that none of them is left on the CPU for want of one.
const OF_SHAPES: [&str; 34] = [
    "Add",
    "And",
    "Cast",
    "Ceil",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Div",
    "Equal",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Greater",
    "Identity",
    "Less",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Range",
    "ReduceProd",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Squeeze",
    "Sub",
    "Unsqueeze",
    "Where",
    "Split",
];

/// Reads the acceleration of a configuration.
///
/// # Errors
/// With what is wrong, without a full stop at its end.
pub(crate) fn parse(config: &ModelConfig) -> Result<Acceleration, String> {
    let mut acceleration = Acceleration::default();
    let Some(optimization) = &config.optimization else { return Ok(acceleration) };
    acceleration.graph = match optimization.graph.map(|graph| graph.level) {
        None | Some(0) => GraphOptimization::All,
        Some(-1) => GraphOptimization::Basic,
        Some(1) => GraphOptimization::Extended,
        Some(2) => GraphOptimization::Disabled,
        Some(other) => {
            return Err(format!(
                "optimization has graph level {other}, and can have -1 (basic), 0 (all), 1 (extended) or 2 (none)"
            ));
        }
    };
    let pinned = |memory: Option<bool>| memory.unwrap_or(true);
    acceleration.pinned_inputs = pinned(optimization.input_pinned_memory.map(|memory| memory.enable));
    acceleration.pinned_outputs = pinned(optimization.output_pinned_memory.map(|memory| memory.enable));
    let Some(accelerators) = &optimization.execution_accelerators else { return Ok(acceleration) };
    if let Some(accelerator) = accelerators.cpu_execution_accelerator.first() {
        return Err(format!("cpu_execution_accelerator `{}` is not supported", accelerator.name));
    }
    let mut seen = Vec::new();
    for accelerator in &accelerators.gpu_execution_accelerator {
        let name = accelerator.name.as_str();
        if seen.contains(&name) {
            return Err(format!("gpu_execution_accelerator `{name}` is given twice"));
        }
        seen.push(name);
        match name {
            "cuda" => acceleration.cuda.extend(cuda(accelerator)?),
            "tensorrt" => acceleration.tensorrt = Some(tensorrt(accelerator)?),
            _ => {
                return Err(format!("gpu_execution_accelerator `{name}` is unknown: use cuda or tensorrt"));
            }
        }
    }
    Ok(acceleration)
}

fn cuda(accelerator: &Accelerator) -> Result<BTreeMap<String, String>, String> {
    let parameter = |(name, value): (&String, &String)| {
        let known = CUDA.iter().find(|(known, _)| known == name);
        let (_, kind) = known.ok_or_else(|| unknown("cuda", name, CUDA.iter().map(|known| known.0)))?;
        Ok((name.clone(), kind.read("cuda", name, value)?))
    };
    accelerator.parameters.iter().map(parameter).collect()
}

fn tensorrt(accelerator: &Accelerator) -> Result<BTreeMap<String, String>, String> {
    let mut options = BTreeMap::from([
        ("trt_max_workspace_size".to_owned(), WORKSPACE_BYTES.to_owned()),
        ("trt_fp16_enable".to_owned(), "0".to_owned()),
        ("trt_int8_enable".to_owned(), "0".to_owned()),
    ]);
    for (name, value) in &accelerator.parameters {
        if name == PRECISION {
            let precision = Value::Word(&["FP32", "FP16", "INT8"]).read("tensorrt", name, value)?;
            options.insert("trt_fp16_enable".to_owned(), u8::from(precision == "FP16").to_string());
            options.insert("trt_int8_enable".to_owned(), u8::from(precision == "INT8").to_string());
            continue;
        }
        let known = TENSORRT.iter().find(|(known, ..)| known == name);
        let names = || TENSORRT.iter().map(|known| known.0).chain([PRECISION]);
        let (_, option, kind) = known.ok_or_else(|| unknown("tensorrt", name, names()))?;
        options.insert((*option).to_owned(), kind.read("tensorrt", name, value)?);
    }
    Ok(options)
}

fn unknown(accelerator: &str, name: &str, known: impl Iterator<Item = &'static str>) -> String {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return format!("parameter `{name}` of the accelerator {accelerator} cannot be set: {why}");
    }
    let known: Vec<_> = known.collect();
    format!(
        "parameter `{name}` of the accelerator {accelerator} is unknown; its parameters are {}",
        known.join(", ")
    )
}

impl Value {
    /// The value as ONNX Runtime takes it.
    fn read(self, accelerator: &str, name: &str, value: &str) -> Result<String, String> {
        let value = value.trim();
        let wrong = |must: &str| {
            Err(format!(
                "parameter `{name}` of the accelerator {accelerator} is `{value}`, and must be {must}"
            ))
        };
        match self {
            Self::Switch => match value.to_ascii_lowercase().as_str() {
                "1" | "true" => Ok("1".to_owned()),
                "0" | "false" => Ok("0".to_owned()),
                _ => wrong("1 or true, or 0 or false"),
            },
            Self::NumberOrOwn if value == "-1" => Ok(value.to_owned()),
            Self::Number | Self::NumberOrOwn => match value.parse::<u64>() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => wrong("a whole number from 0 on"),
            },
            Self::Word(words) => {
                let at = value.parse::<usize>().ok();
                let word = words.iter().enumerate();
                let mut word = word.filter(|(place, word)| Some(*place) == at || **word == value);
                match word.next() {
                    Some((_, word)) => Ok((*word).to_owned()),
                    None => wrong(&format!("one of {}", words.join(", "))),
                }
            }
            Self::Text if value.is_empty() => wrong("there"),
            Self::Text => Ok(value.to_owned()),
        }
    }
}

/// Completes TensorRT's options from the model: without the range of its shapes an engine would be built again for each
/// batch size.
pub(crate) fn complete(acceleration: &mut Acceleration, signature: &Signature) {
    let Some(options) = &mut acceleration.tensorrt else { return };
    let given = ["min", "opt", "max"].map(|end| format!("trt_profile_{end}_shapes"));
    let is_open = signature.inputs.iter().any(|input| input.tensor.dims.iter().any(|&dim| dim < 0));
    if is_open || !signature.has_batch_dimension() || given.iter().any(|name| options.contains_key(name)) {
        return;
    }
    let shapes = |rows: usize| {
        let input = |input: &crate::scheduler::InputSpec| {
            let dims = input.tensor.dims.iter().fold(rows.to_string(), |dims, dim| format!("{dims}x{dim}"));
            format!("{}:{dims}", input.tensor.name)
        };
        signature.inputs.iter().map(input).collect::<Vec<_>>().join(",")
    };
    let [min, opt, max] = given;
    let most = signature.max_batch_size.max(1);
    options.extend([(min, shapes(1)), (opt, shapes(most)), (max, shapes(most))]);
}

/// What of `optimization` has no effect here.
pub(crate) fn unused(optimization: &ModelOptimizationPolicy) -> Vec<&'static str> {
    let fields = [
        ("optimization.priority", optimization.priority != 0),
        ("optimization.cuda", optimization.cuda.is_some()),
        ("optimization.gather_kernel_buffer_threshold", optimization.gather_kernel_buffer_threshold != 0),
        ("optimization.eager_batching", optimization.eager_batching),
    ];
    fields.into_iter().filter(|field| field.1).map(|field| field.0).collect()
}

/// Warns when ONNX Runtime's log did not tell where the nodes of a graph on a GPU run, and of what could not be kept then.
pub(crate) fn warn_of_uncounted(model: &str, nodes: &[ProviderNodes], allowed: CpuNodes) {
    if !nodes.is_empty() {
        return;
    }
    let unkept = match allowed {
        CpuNodes::ShapesOnly => {
            ", and a model that computes on the CPU in part is not refused: set its parameter \
             `session.disable_cpu_ep_fallback` to 1 to have every node on the GPU, or to 0 to allow others"
        }
        CpuNodes::None | CpuNodes::Allowed => "",
    };
    tracing::warn!(
        model,
        "ONNX Runtime's log words the placement of nodes otherwise than it is known here: the model's nodes on the GPU and \
         on the CPU could not be counted{unkept}"
    );
}

/// Refuses a graph that is to run on a GPU and has nodes that compute on the CPU. Where nothing is known of its nodes it
/// is not refused: [`warn_of_uncounted`] says so.
///
/// # Errors
/// With the operators, in words for the middle of a sentence.
pub(crate) fn refuse_cpu_nodes(nodes: &[ProviderNodes]) -> Result<(), String> {
    let all: usize = nodes.iter().map(|of_provider| of_provider.nodes).sum();
    let Some(cpu) = nodes.iter().find(|of_provider| of_provider.provider == ProviderNodes::PROVIDERS[0])
    else {
        return Ok(());
    };
    let computing: Vec<&str> =
        cpu.operators.iter().map(String::as_str).filter(|name| !OF_SHAPES.contains(name)).collect();
    // A graph that is all on the CPU does not tell its operators.
    if computing.is_empty() && cpu.nodes < all {
        return Ok(());
    }
    let which = if computing.is_empty() { "all".to_owned() } else { computing.join(", ") };
    Err(format!(
        "{} of its {all} nodes stay on the CPU, and some of them compute ({which}): set the parameter \
         `session.disable_cpu_ep_fallback` of the model to 0 to allow that",
        cpu.nodes
    ))
}

#[cfg(test)]
mod tests;
