//! How a session is made fast: what graph optimizations, what options of the execution providers, which memory.

use std::collections::BTreeMap;
use std::fmt;

/// What ONNX Runtime does to a graph before it runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GraphOptimization {
    /// Nothing.
    Disabled,
    /// Redundant nodes are removed and constants folded.
    Basic,
    /// Nodes are fused as well.
    Extended,
    /// And laid out for the processor.
    #[default]
    All,
}

/// Which nodes a model that is to run on a GPU may leave on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CpuNodes {
    /// Any. They are counted and shown.
    #[default]
    Allowed,
    /// Those that reckon with shapes, which ONNX Runtime itself keeps on the CPU; none that compute.
    ShapesOnly,
    /// None at all: ONNX Runtime refuses the session (`session.disable_cpu_ep_fallback`).
    None,
}

/// How a session is accelerated. The default is what a model without a word of its own gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    /// What is done to the graph.
    pub graph: GraphOptimization,
    /// Options of ONNX Runtime's CUDA provider, under its names.
    pub cuda: BTreeMap<String, String>,
    /// Options of its TensorRT provider, under its names; `None`: TensorRT is not asked for.
    pub tensorrt: Option<BTreeMap<String, String>>,
    /// Whether inputs go to a GPU from pinned memory.
    pub pinned_inputs: bool,
    /// Whether outputs come from a GPU into pinned memory.
    pub pinned_outputs: bool,
    /// What may stay on the CPU.
    pub cpu_nodes: CpuNodes,
}

impl Acceleration {
    /// The CUDA provider's options where a configuration says nothing: set, so that no release of ONNX Runtime changes
    /// them.
    ///
    /// TF32 is off, so that a GPU's answers differ from a CPU's in the last digits only (TensorRT takes it by itself, and
    /// ONNX Runtime has no option against it). The search for convolution algorithms is exhaustive, as ONNX Runtime and
    /// Triton have it: it costs time at each new shape, and every shape is run before a model is ready.
    pub const CUDA_DEFAULTS: [(&str, &str); 5] = [
        ("arena_extend_strategy", "kNextPowerOfTwo"),
        ("cudnn_conv_algo_search", "EXHAUSTIVE"),
        ("cudnn_conv_use_max_workspace", "1"),
        ("do_copy_in_default_stream", "1"),
        ("use_tf32", "0"),
    ];
}

impl Default for Acceleration {
    fn default() -> Self {
        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            graph: GraphOptimization::default(),
            cuda: Self::CUDA_DEFAULTS.into_iter().map(text).collect(),
            tensorrt: None,
            pinned_inputs: true,
            pinned_outputs: true,
            cpu_nodes: CpuNodes::default(),
        }
    }
}

/// In one line, for the log and for what measurements hold for.
impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |options: &BTreeMap<String, String>| {
            let pairs: Vec<_> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(" ")
        };
        write!(f, "graph {:?}; cuda {}", self.graph, list(&self.cuda))?;
        if let Some(tensorrt) = &self.tensorrt {
            write!(f, "; tensorrt {}", list(tensorrt))?;
        }
        write!(f, "; pinned inputs {}, outputs {}", self.pinned_inputs, self.pinned_outputs)
    }
}
