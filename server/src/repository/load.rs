//! A model version on disk becomes one that can be asked: opened on its device, warmed, measured, scheduled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::available_parallelism;

use sandbox::Sandbox;

use super::RepositoryConfig;
use super::batching;
use super::complete::{CompletedModel, complete};
use super::discover::ModelSource;
use super::identity::ModelFile;
use super::instances::Sessions;
use super::labels;
use super::observer::{VersionObserver, Watchers};
use super::parameters::Parameters;
use super::placement::{self, Placement};
use super::preprocessing::{self, COMPONENT_FILE};
use super::retire::Retirement;
use super::statistics::VersionStatistics;
use super::version::{DETECTIONS_OUTPUT, ModelVersion, Task};
use crate::backend::onnx::OnnxRuntime;
use crate::backend::{Device, ExecutionProvider};
use crate::detection::Detector;
use crate::error::LoadError;
use crate::gpu;
use crate::scheduler::{
    Instances, ModelLabels, PolicyLimits, Profiles, Scheduler, SchedulerOptions, ServingObserver, Signature,
};
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
        return Err(no_file("there is no such file".to_owned()));
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
    match (&vision, &sandbox) {
        (Some(_), sandbox) => preprocessing::tell(&mut config.parameters, sandbox.is_some()),
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
        limits: PolicyLimits { slo, ..limits },
        profiles: started.profiles,
        observer: Arc::<VersionObserver>::clone(&observer),
    };
    let provider = started.provider;
    placement::tell(&mut config.parameters, provider, started.fallback_reason.as_deref());
    observer.placed(
        ModelLabels { model: &source.name, version: &version },
        provider,
        started.fallback_reason.is_some(),
    );
    let instances = started.instances.narrow.len();
    let scheduler = Scheduler::start(options, started.instances)
        .map_err(|error| loading.model_error(format!("a thread for it cannot be started: {error}")))?;
    let model = ModelVersion {
        name: source.name.clone(),
        version,
        config,
        inputs: signature.inputs.iter().map(|input| input.tensor.clone()).collect(),
        outputs: signature.outputs.clone(),
        vision,
        task: parameters.task,
        labels,
        detector,
        sandbox,
        execution_provider: started.provider,
        fallback_reason: started.fallback_reason,
        statistics,
        scheduler: Some(scheduler),
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
    instances: Instances,
    profiles: Profiles,
    provider: ExecutionProvider,
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
        let device = Placement::device(&self.source.written.config, self.repository.device)
            .map_err(|detail| self.config_error(detail))?;
        let place = |provider| {
            let cores = available_parallelism().map_or(1, usize::from);
            let on = (provider, device.gpu());
            let placed = Placement::new(&self.source.written.config, parameters, on, cores);
            placed.map_err(|detail| self.config_error(detail))
        };
        let on_cpu = |reason| {
            let placement = place(ExecutionProvider::Cpu)?;
            self.start_on(&placement, signature, reason).map_err(|detail| self.model_error(detail))
        };
        let on_gpu = || {
            let placement = place(ExecutionProvider::Cuda)?;
            let started = self.may_use(&placement).and_then(|()| self.start_on(&placement, signature, None));
            Ok::<_, LoadError>(started)
        };
        match device {
            Device::Cpu => on_cpu(None),
            Device::Cuda(_) => on_gpu()?.map_err(|detail| LoadError::Device {
                device: device.to_string(),
                detail: format!("{detail}; or use --device cpu"),
            }),
            Device::Auto => match on_gpu()? {
                Ok(started) => Ok(started),
                Err(reason) => on_cpu(Some(reason)),
            },
        }
    }

    /// Whether the library and the driver have what a placement on GPUs needs. The error is what is missing: ONNX Runtime
    /// would only say that it could not.
    fn may_use(&self, placement: &Placement) -> Result<(), String> {
        if !self.runtime.offers_cuda() {
            return Err(
                "the library of ONNX Runtime is built without CUDA: install one that has it".to_owned()
            );
        }
        let numbers: BTreeSet<i32> = placement.device_ids.iter().copied().collect();
        for number in numbers {
            let gpu = gpu::usable(number)?;
            tracing::debug!(number, name = gpu.name, driver = gpu.driver, "A GPU can be used");
        }
        Ok(())
    }

    /// Opens, warms and measures the instances of a placement. The error is what failed.
    fn start_on(
        &self,
        placement: &Placement,
        signature: &Arc<Signature>,
        fallback_reason: Option<String>,
    ) -> Result<Started, String> {
        let sessions = Sessions {
            runtime: self.runtime,
            file: self.file,
            signature,
            placement,
            profile_time: self.repository.profile_time,
            cache: self.repository.profile_cache.as_deref(),
        };
        let (instances, profiles) = sessions.start()?;
        Ok(Started { instances, profiles, provider: placement.provider, fallback_reason })
    }

    fn config_error(&self, detail: String) -> LoadError {
        // Where there is no configuration, what is missing from it is said of the model.
        if !self.source.config_path.is_file() {
            return self.model_error(detail);
        }
        LoadError::Config { path: self.source.config_path.clone(), line: None, detail }
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
