//! A model version on disk becomes one that can be asked: opened on its device, warmed, measured, scheduled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::available_parallelism;

use sandbox::Sandbox;

use super::RepositoryConfig;
use super::acceleration;
use super::batching;
use super::complete::{CompletedModel, complete};
use super::discover::ModelSource;
use super::identity::ModelFile;
use super::instances::{Opened, Sessions, WatchedGpus};
use super::labels;
use super::observer::{VersionObserver, Watchers};
use super::parameters::Parameters;
use super::placement::{self, Placement};
use super::preprocessing::{self, COMPONENT_FILE};
use super::retire::Retirement;
use super::statistics::VersionStatistics;
use super::version::{DETECTIONS_OUTPUT, ModelVersion, Task};
use crate::backend::onnx::OnnxRuntime;
use crate::backend::{Acceleration, CpuNodes, Device, ExecutionProvider};
use crate::detection::Detector;
use crate::error::LoadError;
use crate::gpu;
use crate::scheduler::{ModelLabels, PolicyLimits, Scheduler, SchedulerOptions, ServingObserver, Signature};
use crate::tensor::DataType;

/// Loads one version of a model, whose own preprocessing runs in `sandbox`.
pub(crate) fn load_version(
    runtime: &OnnxRuntime,
    repository: &RepositoryConfig,
    source: &ModelSource,
    (number, file): &(u64, std::path::PathBuf),
    sandbox: Option<Sandbox>,
    watchers: Watchers,
    retirement: Retirement,
) -> Result<ModelVersion, LoadError> {
    let no_file = |detail| LoadError::Model { path: file.clone(), detail };
    if !file.is_file() {
        let named = &source.written.config.default_model_filename;
        return Err(match named.is_empty() {
            true => no_file("there is no such file".to_owned()),
            false => source.config_error(format!(
                "default_model_filename is `{named}`, and version {number} has no such file"
            )),
        });
    }
    let looked_at = Arc::new(ModelFile::look_at(file).map_err(no_file)?);
    let loading = Loading { runtime, repository, source, file: &looked_at };
    let parameters = Parameters::parse(&source.written.config.parameters)
        .map_err(|detail| loading.config_error(detail))?;
    let completed = loading.complete(&parameters)?;
    let detector = match parameters.task {
        Task::Detection => {
            Some(loading.detector(&parameters, &completed).map_err(|detail| loading.config_error(detail))?)
        }
        Task::None | Task::Classification => None,
    };
    let CompletedModel { mut config, signature, vision } = completed;
    let preprocessing_id = vision.as_ref().map(|vision| preprocessing::id(vision, sandbox.as_ref()));
    match (&preprocessing_id, &sandbox) {
        (Some(id), sandbox) => preprocessing::tell(&mut config.parameters, sandbox.is_some(), id),
        (None, None) => {}
        (None, Some(_)) => {
            return Err(loading.config_error(format!(
                "{COMPONENT_FILE} is there, but the model has no image input: give one input a format"
            )));
        }
    }
    let labels = labels::read(&source.folder, &config, parameters.task, &parameters.labels)
        .map_err(|detail| loading.config_error(detail))?;
    let signature = Arc::new(signature);
    let limits = batching::limits(&config, signature.max_batch_size, repository.queue_size)
        .map_err(|detail| loading.config_error(detail))?;
    let slo = parameters.slo.unwrap_or(repository.slo);
    let started = loading.start(&parameters, &signature)?;
    let version = number.to_string();
    let statistics = Arc::new(VersionStatistics::new(signature.max_batch_size));
    let observer = Arc::new(VersionObserver::new(Arc::clone(&statistics), watchers, &source.name, &version));
    let options = SchedulerOptions {
        signature: Arc::clone(&signature),
        version: version.clone(),
        limits: PolicyLimits {
            slo,
            max_batch_size: started
                .opened
                .fits
                .map_or(limits.max_batch_size, |fits| fits.min(limits.max_batch_size)),
            ..limits
        },
        profiles: started.opened.profiles,
        observer: Arc::<VersionObserver>::clone(&observer),
        outputs: repository.outputs.clone(),
    };
    let provider = started.provider;
    let nodes =
        started.opened.instances.narrow.first().map_or(Vec::new(), |one| one.backend.nodes().to_vec());
    placement::tell(&mut config.parameters, provider, &nodes, started.fallback_reason.as_deref());
    let placed = ModelLabels { model: &source.name, version: &version };
    observer.placed(placed, provider, started.fallback_reason.is_some());
    observer.placed_nodes(placed, &nodes);
    let instances = started.opened.instances.narrow.len();
    let kept = started.opened.kept.map(Arc::new);
    if started.provider.is_gpu() {
        acceleration::warn_of_uncounted(&source.name, &nodes, started.cpu_nodes);
    }
    let scheduler = Scheduler::start(options, started.opened.instances)
        .map_err(|error| loading.model_error(format!("a thread for it cannot be started: {error}")))?;
    if provider.is_gpu() {
        repository.gpu_health.watch(scheduler.look_at_devices());
    }
    let model = ModelVersion {
        name: source.name.clone(),
        version,
        config,
        inputs: signature.inputs.iter().map(|input| input.tensor.clone()).collect(),
        outputs: signature.outputs.clone(),
        vision,
        preprocessing_id,
        task: parameters.task,
        labels,
        detector,
        sandbox,
        execution_provider: started.provider,
        fallback_reason: started.fallback_reason,
        nodes,
        statistics,
        scheduler: Some(scheduler),
        kept,
        retirement: Some(retirement),
    };
    log_loaded(&model, instances);
    Ok(model)
}

fn log_loaded(model: &ModelVersion, instances: usize) {
    tracing::info!(
        model = model.name, version = model.version, execution_provider = %model.execution_provider, instances,
        max_batch_size = model.max_batch_size(), preferred_batch_size = model.preferred_batch_size(),
        "Model loaded"
    );
}

/// A version while it is being loaded.
struct Loading<'a> {
    runtime: &'a OnnxRuntime,
    repository: &'a RepositoryConfig,
    source: &'a ModelSource,
    file: &'a Arc<ModelFile>,
}

/// Instances on the device that was chosen.
struct Started {
    opened: Opened,
    provider: ExecutionProvider,
    /// The nodes that it was allowed to leave on the CPU.
    cpu_nodes: CpuNodes,
    fallback_reason: Option<String>,
}

impl Loading<'_> {
    /// Completes the configuration from the model file.
    fn complete(&self, parameters: &Parameters) -> Result<CompletedModel, LoadError> {
        let session =
            self.runtime.inspect(self.file.path()).map_err(|error| self.model_error(error.to_string()))?;
        complete(
            &self.source.name,
            &self.source.written,
            parameters,
            session.inputs(),
            session.outputs(),
            self.repository.default_max_batch_size,
        )
        .map_err(|detail| self.config_error(detail))
    }

    fn detector(&self, parameters: &Parameters, completed: &CompletedModel) -> Result<Detector, String> {
        let signature = &completed.signature;
        let Some(vision) = &completed.vision else {
            return Err(
                "task is detection, but the model has no image input: give one input a format".to_owned()
            );
        };
        if signature.outputs.iter().any(|output| &*output.name == DETECTIONS_OUTPUT) {
            return Err(format!(
                "task is detection, but the model has an output `{DETECTIONS_OUTPUT}` of its own"
            ));
        }
        let output = |parameter: &str, name: &str| {
            let found = signature.outputs.iter().find(|output| &*output.name == name);
            let found = found.ok_or_else(|| {
                format!("task is detection, but there is no output `{name}`: set the parameter `{parameter}`")
            })?;
            match found.datatype {
                DataType::Fp32 => Ok(found),
                other => Err(format!("output `{name}` of a detector is {other}, and must be FP32")),
            }
        };
        let boxes = output("boxes_output", &parameters.boxes_output)?;
        let scores = output("scores_output", &parameters.scores_output)?;
        if !matches!(*boxes.dims, [.., 4 | -1]) {
            return Err(format!("output `{}` has no boxes: its last dimension must be 4", boxes.name));
        }
        let labels = labels::names(&self.source.folder, &parameters.labels)?;
        if let Some(&classes) = scores.dims.last()
            && classes >= 0
            && usize::try_from(classes) != Ok(labels.len())
        {
            return Err(format!(
                "{} has {} names, but output `{}` has scores for {classes} classes",
                parameters.labels,
                labels.len(),
                scores.name
            ));
        }
        Ok(Detector {
            boxes_output: Arc::clone(&boxes.name),
            scores_output: Arc::clone(&scores.name),
            box_format: parameters.box_format,
            size: (vision.resize.width as f32, vision.resize.height as f32),
            classes: kept_classes(labels, parameters.keep_classes.as_deref())?,
            score_threshold: parameters.score_threshold,
            iou_threshold: parameters.iou_threshold,
            max_detections: parameters.max_detections,
        })
    }

    /// Opens and warms the instances: on the GPU if it is asked for or can be had, else on the CPU.
    fn start(&self, parameters: &Parameters, signature: &Arc<Signature>) -> Result<Started, LoadError> {
        let written = &self.source.written.config;
        let config_error = |detail| self.config_error(detail);
        let device = Placement::device(written, self.repository.device).map_err(config_error)?;
        let mut acceleration = acceleration::parse(written).map_err(config_error)?;
        acceleration::complete(&mut acceleration, signature);
        acceleration.cpu_nodes = match (parameters.disable_cpu_fallback, device) {
            (Some(true), _) => CpuNodes::None,
            (None, Device::Cuda(_)) => CpuNodes::ShapesOnly,
            (Some(false), _) | (None, _) => CpuNodes::Allowed,
        };
        let start_on = |provider, reason| {
            let cores = available_parallelism().map_or(1, usize::from);
            let placement = Placement::new(written, parameters, (provider, device.gpu()), cores);
            let placement = placement.map_err(config_error)?;
            let gpus = if provider.is_gpu() { self.may_use(&placement) } else { Ok(WatchedGpus::default()) };
            let started =
                gpus.and_then(|gpus| self.start_on(&placement, &acceleration, &gpus, signature, reason));
            Ok::<_, LoadError>(started)
        };
        // What the configuration asks for comes first; what is left out of it is said.
        let on_gpu: &[ExecutionProvider] = match acceleration.tensorrt {
            Some(_) => &[ExecutionProvider::TensorRt, ExecutionProvider::Cuda],
            None => &[ExecutionProvider::Cuda],
        };
        match device {
            Device::Cpu => start_on(ExecutionProvider::Cpu, None)?.map_err(|detail| self.model_error(detail)),
            Device::Cuda(_) => start_on(on_gpu[0], None)?.map_err(|detail| LoadError::Device {
                device: device.to_string(),
                detail: format!("{detail}; or use --device cpu"),
            }),
            Device::Auto => {
                let mut reason: Option<String> = None;
                for &provider in on_gpu {
                    match start_on(provider, reason.clone())? {
                        Ok(started) => return Ok(started),
                        // One library and one driver: often both fail for the same reason.
                        Err(also) if reason.as_ref() == Some(&also) => {}
                        Err(also) => {
                            reason = Some(reason.map_or(also.clone(), |one| format!("{one}; {also}")))
                        }
                    }
                }
                start_on(ExecutionProvider::Cpu, reason)?.map_err(|detail| self.model_error(detail))
            }
        }
    }

    /// Whether the library and the driver have what a placement on GPUs needs. The error is what is missing: ONNX Runtime
    /// would only say that it could not.
    fn may_use(&self, placement: &Placement) -> Result<WatchedGpus, String> {
        if !self.runtime.offers_cuda() {
            return Err(
                "the library of ONNX Runtime is built without CUDA: install one that has it".to_owned()
            );
        }
        if placement.provider == ExecutionProvider::TensorRt && !self.runtime.offers_tensorrt() {
            return Err("the model's configuration asks for TensorRT, and the library of ONNX Runtime is built without \
                        it: install one that has it, or take the accelerator out"
                .to_owned());
        }
        let numbers: BTreeSet<i32> = placement.device_ids.iter().copied().collect();
        let health = self.repository.gpu_health.clone();
        let (mut uuids, mut driver) = (BTreeMap::new(), String::new());
        for number in numbers {
            let gpu = gpu::usable(number)?;
            driver.clone_from(&gpu.driver);
            tracing::debug!(number, name = gpu.name, driver = gpu.driver, "A GPU can be used");
            if gpu.is_certain {
                health.check(&gpu.uuid)?;
                uuids.insert(number, gpu.uuid);
            } else {
                tracing::warn!(
                    number,
                    "The GPUs here are of different kinds, and CUDA may count them otherwise than their driver: set \
                     CUDA_DEVICE_ORDER=PCI_BUS_ID, or a GPU that is lost is noticed by its failing runs only"
                );
            }
        }
        Ok(WatchedGpus { health, uuids, driver })
    }

    /// Opens, warms and measures the instances of a placement. The error is what failed.
    fn start_on(
        &self,
        placement: &Placement,
        acceleration: &Acceleration,
        gpus: &WatchedGpus,
        signature: &Arc<Signature>,
        fallback_reason: Option<String>,
    ) -> Result<Started, String> {
        let sessions = Sessions {
            runtime: self.runtime,
            file: self.file,
            signature,
            placement,
            acceleration,
            gpus,
            profile_time: self.repository.profile_time,
            cache: self.repository.profile_cache.as_deref(),
        };
        let opened = sessions.start()?;
        let (provider, cpu_nodes) = (placement.provider, acceleration.cpu_nodes);
        Ok(Started { opened, provider, cpu_nodes, fallback_reason })
    }

    fn config_error(&self, detail: String) -> LoadError {
        // Where there is no configuration, what is missing from it is said of the model.
        match self.source.is_configured() {
            true => self.source.config_error(detail),
            false => self.model_error(detail),
        }
    }

    fn model_error(&self, detail: String) -> LoadError {
        LoadError::Model { path: self.file.path().to_owned(), detail }
    }
}

/// Column and name of the classes to keep, in the order of the columns.
fn kept_classes(labels: Vec<Arc<str>>, keep: Option<&[String]>) -> Result<Vec<(usize, Arc<str>)>, String> {
    if let Some(keep) = keep {
        if let Some(unknown) = keep.iter().find(|name| !labels.iter().any(|label| **label == ***name)) {
            return Err(format!("parameter `keep_classes` names `{unknown}`, which the labels do not have"));
        }
        if keep.is_empty() {
            return Err("parameter `keep_classes` names no class".to_owned());
        }
    }
    let kept = |label: &Arc<str>| keep.is_none_or(|keep| keep.iter().any(|name| **name == **label));
    Ok(labels.into_iter().enumerate().filter(|(_, label)| kept(label)).collect())
}
