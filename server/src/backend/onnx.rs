//! Runs models on ONNX Runtime: the only module that imports `ort`.
//!
//! The shared library and its environment are one per process, as ONNX Runtime has them: [`OnnxRuntime::load`] gives
//! every caller the same one. It is the only global here.

mod binding;
mod failure;
mod placement;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProvider as _};
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::Outlet;

use super::{
    Acceleration, Backend, BackendError, BackendFactory, Batch, CpuNodes, ExecutionProvider,
    GraphOptimization, ProviderNodes,
};
use crate::error::LoadError;
use crate::tensor::{Tensor, TensorSpec};
pub use binding::RunParts;
use binding::{Binding, HostMemory};
use failure::backend_error;
use placement::PlacementLog;
use values::{input_value, output_tensor, spec};

/// Where `scripts/setup-onnxruntime.sh` puts the library, under the repository's root.
const SET_UP_LIBRARY: &str = ".convoy/onnxruntime/libonnxruntime.so";
/// What the system's loader is asked for.
const SYSTEM_LIBRARY: &str = "libonnxruntime.so";

/// How long a session's threads spin for their next piece of work before they sleep.
///
/// The detector on two threads and two cores, p50 and CPU of a call: on a quiet machine 12.2 ms and 24 ms, as with the
/// library's default and with anything from 50 to 1000 µs (13.8 ms without spinning); on a machine that compiles
/// meanwhile 48–60 ms and 24.5 ms, as without spinning (105 ms and 43 ms with the default).
const SPIN_MICROSECONDS: &str = "200";

/// ONNX Runtime, loaded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    library: Arc<PathBuf>,
}

/// ONNX Runtime allows one library and one environment per process.
static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

/// How a model is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// What runs it.
    pub provider: ExecutionProvider,
    /// Number of the GPU, for providers of one.
    pub device_id: i32,
    /// Threads that work on one operator, the caller's included.
    pub intra_op_threads: usize,
    /// How it is made fast.
    pub acceleration: Acceleration,
}

impl SessionOptions {
    /// Options with the default acceleration.
    pub fn new(provider: ExecutionProvider, device_id: i32, intra_op_threads: usize) -> Self {
        Self { provider, device_id, intra_op_threads, acceleration: Acceleration::default() }
    }
}

impl OnnxRuntime {
    /// Loads `library`, or the one found in the documented places: `.convoy/onnxruntime/libonnxruntime.so` under the
    /// working directory or an ancestor of the executable, else what the system's loader finds.
    ///
    /// # Errors
    /// When there is none, when it is too old, or when the process has loaded another one before.
    pub fn load(library: Option<&Path>) -> Result<Self, LoadError> {
        let library = library.map_or_else(find_library, Path::to_path_buf);
        // One name for one file; what only the system's loader can find keeps the name it has.
        let library = library.canonicalize().unwrap_or(library);
        let failed = |detail: String| LoadError::Runtime { library: library.clone(), detail };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            if *runtime.library != library {
                return Err(failed(format!(
                    "this process has loaded {} already, and can load only one",
                    runtime.library.display()
                )));
            }
            return Ok(runtime.clone());
        }
        let builder = ort::init_from(&library).map_err(|error| failed(sentence(error)))?;
        let environment = builder
            .with_name("convoy")
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(sentence(error)))?;
        tracing::info!(library = %library.display(), build = ort::info(), "ONNX Runtime loaded");
        let runtime = Self { environment, library: Arc::new(library) };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// What the library says of its build: version, commit, compiler's flags.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// Whether the library was built with the CUDA execution provider. It may still find no GPU.
    pub fn offers_cuda(&self) -> bool {
        ep::CUDA::is_available().unwrap_or(false)
    }

    /// Whether the library was built with the TensorRT execution provider. Its own libraries may still be missing.
    pub fn offers_tensorrt(&self) -> bool {
        ep::TensorRT::is_available().unwrap_or(false)
    }

    /// Opens a model.
    ///
    /// # Errors
    /// When the file is no model, or the execution provider cannot be had: there is no silent change to another.
    pub fn open(&self, model: &Path, options: &SessionOptions) -> Result<RawSession, BackendError> {
        self.session(model, options)
    }

    /// Opens a model just to read its inputs and outputs: sooner, and not made to run fast.
    ///
    /// # Errors
    /// When the file is no model.
    pub fn inspect(&self, model: &Path) -> Result<RawSession, BackendError> {
        let mut options = SessionOptions::new(ExecutionProvider::Cpu, 0, 1);
        options.acceleration.graph = GraphOptimization::Disabled;
        self.session(model, &options)
    }

    fn session(&self, model: &Path, options: &SessionOptions) -> Result<RawSession, BackendError> {
        let failed = |error: ort::Error| backend_error(error);
        let log = PlacementLog::default();
        let session = self.build(model, options, &log).map_err(failed)?;
        let specs = |outlets: &[Outlet]| outlets.iter().map(spec).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (specs(session.inputs())?, specs(session.outputs())?);
        // The session's log is verbose for what it says of the nodes; runs are not to add to it.
        let mut run_options = RunOptions::new().map_err(failed)?;
        run_options.set_log_level(LogLevel::Error).map_err(failed)?;
        let mut opened =
            RawSession { session, inputs, outputs, run_options, binding: None, nodes: log.nodes() };
        if options.provider.is_gpu() {
            let Acceleration { pinned_inputs, pinned_outputs, .. } = options.acceleration;
            let pinned = |pinned: bool| pinned.then_some(options.device_id);
            let memory = HostMemory {
                pinned_inputs: pinned(pinned_inputs),
                pinned_outputs: pinned(pinned_outputs),
                gpu: Some(options.device_id),
            };
            if let Err(error) = opened.bind(memory) {
                tracing::warn!(%error, "There is no pinned memory: copies to and from the GPU take longer");
            }
        }
        Ok(opened)
    }

    fn build(&self, model: &Path, options: &SessionOptions, log: &PlacementLog) -> ort::Result<Session> {
        let SessionOptions { provider, device_id, intra_op_threads, acceleration } = options;
        let mut builder = Session::builder(&self.environment)?
            .with_logger(log.logger())?
            .with_log_level(LogLevel::Verbose)?
            .with_optimization_level(level(acceleration.graph))?
            .with_intra_threads(*intra_op_threads)?
            // Threads that spin between runs would take the cores from everything else on the machine, and those that
            // spin long within a run do where it has other work.
            .with_config_entry("session.force_spinning_stop", "1")?
            .with_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)?;
        if provider.is_gpu() {
            if acceleration.cpu_nodes == CpuNodes::None {
                builder = builder.with_disable_cpu_fallback()?;
            }
            let mut cuda = ep::CUDA::default().with_device_id(*device_id);
            for (name, value) in &acceleration.cuda {
                cuda = cuda.with_arbitrary_config(name, value);
            }
            // Without `error_on_failure`, ort goes on with the CPU as if nothing had happened.
            let mut providers = vec![cuda.build().error_on_failure()];
            if *provider == ExecutionProvider::TensorRt {
                let mut tensorrt = ep::TensorRT::default().with_device_id(*device_id);
                for (name, value) in acceleration.tensorrt.iter().flatten() {
                    tensorrt = tensorrt.with_arbitrary_config(name, value);
                }
                // The first one is asked first.
                providers.insert(0, tensorrt.build().error_on_failure());
            }
            builder = builder.with_execution_providers(providers)?;
        }
        builder.commit_from_file(model)
    }
}

fn level(graph: GraphOptimization) -> GraphOptimizationLevel {
    match graph {
        GraphOptimization::Disabled => GraphOptimizationLevel::Disable,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::All => GraphOptimizationLevel::All,
    }
}

/// The library in the documented places.
fn find_library() -> PathBuf {
    let working_directory = std::env::current_dir().ok();
    let executable = std::env::current_exe().ok();
    let above_executable = executable.iter().flat_map(|path| path.ancestors().skip(1));
    working_directory
        .as_deref()
        .into_iter()
        .chain(above_executable)
        .map(|folder| folder.join(SET_UP_LIBRARY))
        .find(|library| library.is_file())
        .unwrap_or_else(|| PathBuf::from(SYSTEM_LIBRARY))
}

/// Makes backends for one model file.
#[derive(Clone, Debug)]
pub struct OnnxBackendFactory {
    /// The library.
    pub runtime: OnnxRuntime,
    /// The model file.
    pub model: PathBuf,
    /// How it is opened.
    pub options: SessionOptions,
    /// Names of the outputs that the model version gives, in its order.
    pub outputs: Vec<String>,
}

impl BackendFactory for OnnxBackendFactory {
    fn create(&self) -> Result<Box<dyn Backend>, BackendError> {
        let mut session = self.runtime.open(&self.model, &self.options)?;
        session.select_outputs(&self.outputs)?;
        Ok(Box::new(session))
    }

    fn is_on_accelerator(&self) -> bool {
        self.options.provider.is_gpu()
    }
}

/// An open model, run directly: no queue, no batching. For backends, and to measure them against.
pub struct RawSession {
    /// For runs with bound tensors; `None`: ONNX Runtime reads the batch where it lies. Dropped before the session.
    binding: Option<Binding>,
    session: Session,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    run_options: RunOptions<NoSelectedOutputs>,
    nodes: Vec<ProviderNodes>,
}

impl fmt::Debug for RawSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSession").field("session", &self.session).field("nodes", &self.nodes).finish()
    }
}

impl RawSession {
    /// The model's inputs with all dimensions as the file has them; -1 for an open one.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The outputs that a run gives, with all dimensions as the file has them; -1 for an open one.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Gives these outputs from now on, in this order.
    ///
    /// # Errors
    /// When the model has no such output.
    pub fn select_outputs(&mut self, names: &[String]) -> Result<(), BackendError> {
        let find = |name: &String| {
            let found = self.outputs.iter().find(|spec| *spec.name == **name).cloned();
            found.ok_or_else(|| BackendError::new(format!("the model file has no output `{name}`")))
        };
        self.outputs = names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Runs a batch and tells how long its copies and the model took; `None` where nothing is copied.
    ///
    /// # Errors
    /// When the model fails.
    pub fn time_parts(&mut self, batch: &Batch<'_>) -> Result<Option<RunParts>, BackendError> {
        let Some(binding) = &mut self.binding else { return Ok(None) };
        binding.time_parts(&mut self.session, &self.run_options, batch, &self.outputs).map(Some)
    }

    /// Runs with bound tensors from now on.
    fn bind(&mut self, memory: HostMemory) -> Result<(), BackendError> {
        let binding = Binding::new(&self.session, memory);
        self.binding = Some(binding.map_err(backend_error)?);
        Ok(())
    }
}

impl Backend for RawSession {
    fn infer(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, BackendError> {
        if let Some(binding) = &mut self.binding {
            return binding.run(&mut self.session, &self.run_options, batch, &self.outputs);
        }
        let values: Vec<(&str, SessionInputValue<'_>)> = batch
            .inputs
            .iter()
            .map(|input| Ok((input.name, input_value(input)?)))
            .collect::<Result<_, BackendError>>()?;
        let values = self.session.run_with_options(values, &self.run_options);
        let mut values = values.map_err(backend_error)?;
        let take = |spec: &TensorSpec| {
            let value = values.remove(&*spec.name);
            let value = value
                .ok_or_else(|| BackendError::new(format!("the model gave no output `{}`", spec.name)))?;
            output_tensor(spec, value)
        };
        self.outputs.iter().map(take).collect()
    }

    fn nodes(&self) -> &[ProviderNodes] {
        &self.nodes
    }
}

/// What ONNX Runtime said, fit for the middle of a sentence.
fn sentence(error: impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
