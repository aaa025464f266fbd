//! The sessions that serve a model: opened in the shapes that measuring has found best, or that are remembered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::acceleration;
use super::identity::{ModelFile, SameFileFactory};
use super::kept_profile::KeptProfile;
use super::placement::Placement;
use super::profile_cache::{ProfileCache, ProfileKey, processor};
use super::shapes::{Choice, InstanceShape, Measurements};
use super::warmup::{Learned, Recalled, Warmup};
use crate::backend::onnx::{OnnxBackendFactory, OnnxRuntime, SessionOptions};
use crate::backend::watched::{Watched, WatchedFactory};
use crate::backend::{Acceleration, BackendFactory, CpuNodes};
use crate::gpu::GpuHealth;
use crate::scheduler::{InstanceParts, Instances, Profiles, Signature};

/// Bytes of weights that measuring may hold open in several sessions without being asked for them.
const MAX_MEASURED_WEIGHTS: u64 = 2 << 30;

/// What the sessions of a model version are opened with.
pub(crate) struct Sessions<'a> {
    /// The library.
    pub(crate) runtime: &'a OnnxRuntime,
    /// The model file.
    pub(crate) file: &'a Arc<ModelFile>,
    /// What the model takes and gives.
    pub(crate) signature: &'a Arc<Signature>,
    /// Where it runs.
    pub(crate) placement: &'a Placement,
    /// How the sessions are made fast.
    pub(crate) acceleration: &'a Acceleration,
    /// The GPUs it runs on.
    pub(crate) gpus: &'a WatchedGpus,
    /// What measuring may take.
    pub(crate) profile_time: Duration,
    /// Where measurements are kept, if they are.
    pub(crate) cache: Option<&'a Path>,
}

/// The GPUs of a placement, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedGpus {
    /// Knows which are lost.
    pub(crate) health: GpuHealth,
    /// By CUDA's numbers.
    pub(crate) uuids: BTreeMap<i32, String>,
    /// Version of their driver.
    pub(crate) driver: String,
}

/// The sessions that serve.
pub(crate) struct Opened {
    pub(crate) instances: Instances,
    pub(crate) profiles: Profiles,
    /// Rows for which the device has memory, where that is less than the model may be asked for.
    pub(crate) fits: Option<usize>,
    /// Where the profiles are kept, to be told what is learned of them.
    pub(crate) kept: Option<KeptProfile>,
}

impl Sessions<'_> {
    /// Opens, warms and measures the sessions, or opens and warms those of an earlier measurement. The error is what
    /// failed, in words for the middle of a sentence.
    pub(crate) fn start(&self) -> Result<Opened, String> {
        let started = Instant::now();
        let shapes = self.shapes();
        let open = |number: usize, threads: usize| self.open(number, threads);
        let warmup = Warmup {
            signature: self.signature,
            open: &open,
            time: self.profile_time,
            on_gpu: self.placement.provider.is_gpu(),
        };
        let cache = self.cache.map(|folder| (ProfileCache::new(folder), self.key(&shapes)));
        if let Some(known) = cache.as_ref().and_then(|(cache, key)| cache.get(key)) {
            let Recalled { instances, choice, fits } = warmup.recall(&known)?;
            self.log(&known, choice, "remembered", started);
            let kept = cache.map(|(cache, key)| KeptProfile { cache, key });
            let factors = kept.as_ref().map(KeptProfile::factors).unwrap_or_default();
            return Ok(Opened { instances, profiles: factors.apply(known.profiles(choice)), fits, kept });
        }
        let Learned { instances, choice, measurements, steady, fits } = warmup.learn(&shapes)?;
        self.log(&measurements, choice, "measured", started);
        let kept = match cache {
            Some((cache, key)) if steady => {
                cache.put(&key, &measurements);
                Some(KeptProfile { cache, key })
            }
            Some(_) => {
                tracing::info!(
                    model = %self.signature.model,
                    "The machine was busy while the model was measured: the next start measures it again"
                );
                None
            }
            None => None,
        };
        Ok(Opened { instances, profiles: measurements.profiles(choice), fits, kept })
    }

    /// The shapes to measure: what was asked for, or those that memory surely has room for.
    fn shapes(&self) -> Vec<InstanceShape> {
        let mut shapes = self.placement.shapes.clone();
        if shapes.len() > 1 {
            let weights = self.file.path().parent().map_or(0, bytes_in);
            let fits = |shape: &InstanceShape| shape.instances as u64 * weights <= MAX_MEASURED_WEIGHTS;
            shapes.retain(|shape| shape.instances == 1 || fits(shape));
        }
        shapes
    }

    fn open(&self, number: usize, threads: usize) -> Result<InstanceParts, String> {
        let Placement { provider, device_ids, .. } = self.placement;
        let device_id = device_ids.get(number).or(device_ids.first()).copied().unwrap_or(0);
        let inner = OnnxBackendFactory {
            runtime: self.runtime.clone(),
            model: self.file.path().to_owned(),
            options: SessionOptions {
                provider: *provider,
                device_id,
                intra_op_threads: threads,
                acceleration: self.acceleration.clone(),
            },
            outputs: self.signature.outputs.iter().map(|output| output.name.to_string()).collect(),
        };
        let gpu = Watched {
            health: self.gpus.health.clone(),
            uuid: provider.is_gpu().then(|| self.gpus.uuids.get(&device_id).cloned()).flatten(),
        };
        let inner = SameFileFactory { inner, file: Arc::clone(self.file) };
        let factory = WatchedFactory { inner, gpu };
        let backend = factory.create().map_err(|error| error.to_string())?;
        if provider.is_gpu() && self.acceleration.cpu_nodes == CpuNodes::ShapesOnly {
            acceleration::refuse_cpu_nodes(backend.nodes())?;
        }
        Ok(InstanceParts { backend, factory: Arc::new(factory) })
    }

    /// What measurements of this model hold for.
    fn key(&self, shapes: &[InstanceShape]) -> ProfileKey {
        let Placement { provider, device_ids, .. } = self.placement;
        let device = match provider.is_gpu() {
            false => format!("{provider} {}, graph {:?}", processor(), self.acceleration.graph),
            true => {
                let (cards, driver) = (graphics_cards(), &self.gpus.driver);
                format!("{provider} {device_ids:?} of {cards}, driver {driver}: {}", self.acceleration)
            }
        };
        let inputs = self.signature.inputs.iter().map(|input| &input.tensor);
        let tensors = inputs
            .chain(&self.signature.outputs)
            .map(|tensor| format!("{} {} {:?}", tensor.name, tensor.datatype, tensor.dims));
        ProfileKey {
            model_sha256: self.file.sha256().to_owned(),
            device,
            library: self.runtime.build_info().to_owned(),
            cores: available_parallelism().map_or(1, usize::from),
            max_batch_size: self.signature.max_batch_size,
            tensors: tensors.collect::<Vec<_>>().join(", "),
            candidates: shapes.to_vec(),
        }
    }

    fn log(&self, measurements: &Measurements, choice: Choice, how: &str, started: Instant) {
        let model = &*self.signature.model;
        for (rows, cells) in measurements.table() {
            tracing::info!(model, rows, "Batches of {rows}: {cells}");
        }
        let shape = |at: usize| measurements.0[at].shape.to_string();
        tracing::info!(
            model,
            shape = shape(choice.narrow),
            wide_shape = choice.wide.map(shape),
            duration_ms = started.elapsed().as_millis(),
            "Latencies {how}"
        );
    }
}

/// Bytes of the files in a folder: of a model, and of the weights that lie beside it.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// The names of the machine's NVIDIA cards, as its driver gives them on Linux; empty elsewhere.
fn graphics_cards() -> String {
    let cards = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut names: Vec<String> = cards
        .filter_map(|card| std::fs::read_to_string(card.path().join("information")).ok())
        .filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned()))
        .collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::backend::ExecutionProvider;
    use crate::repository::shapes::{ShapeLatencies, candidates};
    use crate::scheduler::InputSpec;
    use crate::tensor::{DataType, TensorSpec};
    use crate::test_models;

    fn signature() -> Arc<Signature> {
        let spec = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, dims: vec![3] };
        let input = InputSpec { tensor: spec("x"), pixels: None };
        Arc::new(Signature {
            model: "m".into(),
            inputs: vec![input],
            outputs: vec![spec("y")],
            max_batch_size: 0,
        })
    }

    #[test]
    fn what_is_remembered_is_opened_and_not_measured() {
        let (folder, signature) = (tempfile::tempdir().unwrap(), signature());
        let placement =
            Placement { provider: ExecutionProvider::Cpu, device_ids: vec![0], shapes: candidates(2) };
        let runtime = OnnxRuntime::load(Some(&test_models::library())).unwrap();
        let file = folder.path().join("model.onnx");
        std::fs::copy(test_models::path("unbatched"), &file).unwrap();
        let looked_at = Arc::new(ModelFile::look_at(&file).unwrap());
        let sessions = Sessions {
            runtime: &runtime,
            file: &looked_at,
            signature: &signature,
            placement: &placement,
            acceleration: &Acceleration::default(),
            gpus: &WatchedGpus::default(),
            profile_time: Duration::ZERO,
            cache: Some(folder.path()),
        };
        let of = |shape, one| ShapeLatencies { shape, milliseconds: vec![(1, one)] };
        let known = Measurements(vec![of(placement.shapes[0], 100.0), of(placement.shapes[1], 150.0)]);
        ProfileCache::new(folder.path()).put(&sessions.key(&sessions.shapes()), &known);
        let Opened { instances, profiles, .. } = sessions.start().unwrap();
        assert_eq!((instances.narrow.len(), instances.wide.is_some()), (2, true));
        assert_eq!(profiles.narrow.expected(1), Duration::from_millis(150));
        assert_eq!(profiles.wide.unwrap().expected(1), Duration::from_millis(100));

        // Another model under the same name is measured.
        std::fs::copy(test_models::path("types"), &file).unwrap();
        let looked_at = Arc::new(ModelFile::look_at(&file).unwrap());
        let other = Sessions { file: &looked_at, ..sessions };
        let other = other.key(&other.shapes());
        assert_eq!(ProfileCache::new(folder.path()).get(&other), None);
    }

    #[test]
    fn another_driver_is_measured_again() {
        let (folder, signature) = (tempfile::tempdir().unwrap(), signature());
        let runtime = OnnxRuntime::load(Some(&test_models::library())).unwrap();
        let file = folder.path().join("model.onnx");
        std::fs::copy(test_models::path("unbatched"), &file).unwrap();
        let file = Arc::new(ModelFile::look_at(&file).unwrap());
        let key = |provider, driver: &str| {
            let shapes = vec![InstanceShape { instances: 1, threads: 1 }];
            let placement = Placement { provider, device_ids: vec![0], shapes };
            let sessions = Sessions {
                runtime: &runtime,
                file: &file,
                signature: &signature,
                placement: &placement,
                acceleration: &Acceleration::default(),
                gpus: &WatchedGpus { driver: driver.to_owned(), ..WatchedGpus::default() },
                profile_time: Duration::ZERO,
                cache: None,
            };
            sessions.key(&placement.shapes)
        };
        let (cuda, cpu) = (ExecutionProvider::Cuda, ExecutionProvider::Cpu);
        assert_eq!(key(cuda, "580.65.06"), key(cuda, "580.65.06"));
        assert_ne!(key(cuda, "580.65.06"), key(cuda, "590.48.01"));
        assert_eq!(key(cpu, "580.65.06"), key(cpu, "590.48.01"), "a processor has none");
    }

    #[test]
    fn weights_are_not_held_often_unless_that_is_asked_for() {
        let (folder, signature) = (tempfile::tempdir().unwrap(), signature());
        let runtime = OnnxRuntime::load(Some(&test_models::library())).unwrap();
        let file = folder.path().join("model.onnx");
        // Sparse: a file that only looks as large.
        std::fs::File::create(&file).unwrap().set_len(MAX_MEASURED_WEIGHTS / 4).unwrap();
        let file = Arc::new(ModelFile::look_at(&file).unwrap());
        let shapes = |shapes: Vec<InstanceShape>| {
            let placement = Placement { provider: ExecutionProvider::Cpu, device_ids: vec![0], shapes };
            let sessions = Sessions {
                runtime: &runtime,
                file: &file,
                signature: &signature,
                placement: &placement,
                acceleration: &Acceleration::default(),
                gpus: &WatchedGpus::default(),
                profile_time: Duration::ZERO,
                cache: None,
            };
            sessions.shapes().iter().map(|shape| shape.instances).collect::<Vec<_>>()
        };
        assert_eq!(shapes(candidates(8)), [1, 4, 2]);
        assert_eq!(shapes(vec![InstanceShape { instances: 8, threads: 1 }]), [8]);
    }
}
