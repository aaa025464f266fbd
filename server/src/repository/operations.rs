//! Loads and unloads while the server runs: on blocking threads, a bounded number of them, one at a time for each
//! model, and only one load at a time altogether: a load measures how fast the model is, and two of them would measure
//! each other. They go on when whoever asked for them is gone.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use sandbox::Sandbox;
use service_kit::{Hold, Readiness};

use super::config::WrittenConfig;
use super::control::{ControlParameters, IndexEntry, check_unload_parameters, given_config};
use super::discover::{self, ModelSource};
use super::fallbacks::Fallbacks;
use super::load::load_version;
use super::load_thread::{on_a_thread_for, panic_message};
use super::observer::Watchers;
use super::preprocessing;
use super::registry::{LoadId, ModelState, Outcome, Registry};
use super::retire::{Retirement, Work, Working};
use super::version::ModelVersion;
use super::{ModelControlMode, RepositoryConfig};
use crate::backend::onnx::OnnxRuntime;
use crate::error::{LoadError, ServingError};
use crate::scheduler::{ServingObserver, lock};

/// Loads and unloads that may be under way or wait; one more is answered `Overloaded`.
const MAX_UNDER_WAY: usize = 16;
/// When another try may be accepted.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long an unload waits for the end of what it unloads.
const UNLOAD_PATIENCE: Duration = Duration::from_secs(10);

/// The repository, as the threads that load and unload see it.
pub(super) struct Shared {
    config: RepositoryConfig,
    runtime: OnnxRuntime,
    observer: Arc<dyn ServingObserver>,
    registry: RwLock<Registry<ModelVersion>>,
    work: Arc<Work>,
    /// Held by the load that measures.
    measuring: Mutex<()>,
    /// What is to be served from the start.
    chosen: Vec<String>,
    /// What the models chosen at start hold while they do not work. There if readiness is theirs to hold.
    readiness: OnceLock<Readiness>,
    /// Keeps the server from being ready, by model.
    holds: Mutex<HashMap<String, Hold>>,
    fallbacks: Fallbacks,
    myself: Weak<Self>,
}

/// Why a model was not loaded.
enum LoadFailure {
    /// The repository does not hold it.
    NotFound,
    /// The server is stopping.
    Stopping,
    /// It, or one of its versions, cannot be served.
    Failed(LoadError),
}

impl Shared {
    pub(super) fn new(
        config: RepositoryConfig,
        runtime: OnnxRuntime,
        observer: Arc<dyn ServingObserver>,
        chosen: Vec<String>,
    ) -> Arc<Self> {
        let mut registry = Registry::new();
        for name in &chosen {
            registry.want(name);
        }
        Arc::new_cyclic(|myself| Self {
            config,
            runtime,
            observer,
            registry: RwLock::new(registry),
            work: Work::new(),
            measuring: Mutex::default(),
            chosen,
            readiness: OnceLock::new(),
            holds: Mutex::default(),
            fallbacks: Fallbacks::default(),
            myself: myself.clone(),
        })
    }

    pub(super) fn registry(&self) -> RwLockReadGuard<'_, Registry<ModelVersion>> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_mut(&self) -> RwLockWriteGuard<'_, Registry<ModelVersion>> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn default_model<'a>(&'a self, registry: &'a Registry<ModelVersion>) -> Option<&'a str> {
        self.config.default_model.as_deref().or_else(|| registry.only())
    }

    pub(super) fn index(&self, only_ready: bool) -> Vec<IndexEntry> {
        // A repository that cannot be read just now has no more to tell than what was loaded from it.
        let on_disk = if only_ready { None } else { discover::names(&self.config.path).ok() };
        let registry = self.registry();
        let mut index = registry.index(on_disk.into_iter().flatten());
        for entry in index.iter_mut().filter(|entry| entry.is_ready()) {
            let Ok(model) = registry.get(&entry.name, &entry.version) else { continue };
            let broken = model.broken_instances();
            entry.reason = broken.to_string();
            if broken.is_all() {
                entry.state = ModelState::Unavailable.as_str();
            }
        }
        drop(registry);
        index.retain(|entry| !only_ready || entry.is_ready());
        index
    }

    pub(super) fn hold_until_served(&self, readiness: &Readiness) {
        // It is told once, before anything is loaded.
        let _ = self.readiness.set(readiness.clone());
        let mut holds = lock(&self.holds);
        let registry = self.registry();
        for name in self.chosen.iter().filter(|name| !registry.serves(name)) {
            holds.insert(name.clone(), readiness.hold(format!("model {name}")));
        }
    }

    /// What could not be loaded, by the model's name; it is the caller's to log.
    pub(super) fn load_chosen(&self) -> Vec<(String, LoadError)> {
        let _working = self.work.begin();
        let mut errors = Vec::new();
        for name in &self.chosen {
            match self.load(name, None) {
                Ok(()) => {}
                Err(LoadFailure::Failed(error)) => errors.push((name.clone(), error)),
                Err(LoadFailure::NotFound) => {
                    let detail = format!("it holds no model `{name}`");
                    let error = LoadError::Repository { path: self.config.path.clone(), detail };
                    self.registry_mut().refused(name, &error.to_string());
                    errors.push((name.clone(), error));
                }
                Err(LoadFailure::Stopping) => break,
            }
        }
        errors
    }

    pub(super) async fn load_on_request(
        &self,
        name: &str,
        parameters: ControlParameters,
    ) -> Result<(), ServingError> {
        let working = self.admit()?;
        let given = given_config(parameters)?;
        let model = name.to_owned();
        let load = move |shared: &Self| shared.load(&model, given);
        match self.on_a_thread(working, load).await? {
            Ok(()) => Ok(()),
            Err(LoadFailure::NotFound) => Err(ServingError::ModelNotFound { name: name.to_owned() }),
            Err(LoadFailure::Stopping) => Err(stopping()),
            Err(LoadFailure::Failed(error)) => {
                log_not_loaded(name, &error);
                let why = self.without_paths(&error.to_string());
                Err(ServingError::InvalidInput(format!("Model `{name}` cannot be loaded: {why}")))
            }
        }
    }

    pub(super) async fn unload_on_request(
        &self,
        name: &str,
        parameters: ControlParameters,
    ) -> Result<(), ServingError> {
        let working = self.admit()?;
        check_unload_parameters(&parameters)?;
        let model = name.to_owned();
        let unloaded = self.on_a_thread(working, move |shared: &Self| shared.unload(&model)).await?;
        let served = unloaded.ok_or_else(|| ServingError::ModelNotFound { name: name.to_owned() })?;
        let Some(load) = served else { return Ok(()) };
        let mut ends = self.work.ends();
        let drained = async {
            while self.registry().is_draining(name, load) {
                // The sender lives as long as `self`.
                let _ = ends.changed().await;
            }
        };
        // What takes longer goes on: the index tells when it has ended.
        let _ = tokio::time::timeout(UNLOAD_PATIENCE, drained).await;
        Ok(())
    }

    pub(super) fn end_control(&self) {
        self.work.close();
    }

    pub(super) fn shutdown(&self) {
        self.work.close();
        let served: Vec<_> = self.registry().served().cloned().collect();
        // All are closed first, so that they drain side by side.
        for model in &served {
            model.close();
        }
        for model in &served {
            model.stop();
        }
        self.work.wait();
    }

    pub(super) fn forget_all(&self) {
        let registry = std::mem::replace(&mut *self.registry_mut(), Registry::new());
        drop(registry);
    }

    fn admit(&self) -> Result<Working, ServingError> {
        if self.config.control_mode == ModelControlMode::None {
            return Err(ServingError::Unavailable(
                "Models are not loaded and unloaded on request here: start the server with --model-control-mode \
                 explicit."
                    .to_owned(),
            ));
        }
        if self.work.is_closing() {
            return Err(stopping());
        }
        self.work.begin_below(MAX_UNDER_WAY).ok_or_else(|| ServingError::Overloaded {
            detail: "Too many models are being loaded and unloaded".to_owned(),
            retry_after: RETRY_AFTER,
        })
    }

    /// Runs `work` on a thread that may block; it is run to its end even if nobody waits for it.
    async fn on_a_thread<T: Send + 'static>(
        &self,
        working: Working,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ServingError> {
        let shared = self.myself.upgrade().ok_or_else(stopping)?;
        let run = move || {
            let result = work(&shared);
            // The repository may be waiting for this to end.
            drop(shared);
            drop(working);
            result
        };
        tokio::task::spawn_blocking(run).await.map_err(|error| {
            tracing::error!(%error, "Loading or unloading a model ended unexpectedly");
            ServingError::Internal("The load ended unexpectedly; the server's log says why.".to_owned())
        })
    }

    fn load(&self, name: &str, given: Option<WrittenConfig>) -> Result<(), LoadFailure> {
        let _alone = self.work.alone(name);
        if self.work.is_closing() {
            return Err(LoadFailure::Stopping);
        }
        let source = match discover::find(&self.config.path, name, given) {
            Ok(Some(source)) => source,
            Ok(None) => return Err(LoadFailure::NotFound),
            Err(error) => return Err(self.refuse(name, error)),
        };
        let sandbox = match preprocessing::load(&source, self.config.sandbox.as_ref()) {
            Ok(sandbox) => sandbox,
            Err(error) => return Err(self.refuse(name, error)),
        };
        let load = {
            let mut registry = self.registry_mut();
            registry.want(name);
            registry.loading(name, source.versions.iter().map(|&(number, _)| number))
        };
        let mut outcome = Outcome { loaded: Vec::new(), failed: Vec::new() };
        let mut first_error = None;
        for version in &source.versions {
            match self.load_version(&source, version, load, sandbox.clone()) {
                Ok(model) => outcome.loaded.push((version.0, Arc::new(model))),
                Err(error) => {
                    outcome.failed.push((version.0, error.to_string()));
                    first_error.get_or_insert(error);
                }
            }
            if self.work.is_closing() {
                // Nothing takes over any more; what was loaded ends here.
                return Err(LoadFailure::Stopping);
            }
        }
        let given_back = self.registry_mut().finish(name, load, outcome);
        drop(given_back);
        if let Some(error) = first_error {
            return Err(LoadFailure::Failed(error));
        }
        lock(&self.holds).remove(name);
        Ok(())
    }

    /// Loads one version. What panics is an error of this version.
    fn load_version(
        &self,
        source: &ModelSource,
        version: &(u64, PathBuf),
        id: LoadId,
        sandbox: Option<Sandbox>,
    ) -> Result<ModelVersion, LoadError> {
        let _measuring = lock(&self.measuring);
        let load = || {
            let is_chosen = self.chosen.contains(&source.name);
            let watchers = Watchers {
                observer: Arc::clone(&self.observer),
                readiness: self.readiness.get().filter(|_| is_chosen).cloned(),
            };
            let retirement = self.retirement(&source.name, version.0, id);
            load_version(&self.runtime, &self.config, source, version, sandbox, watchers, retirement)
        };
        let model = on_a_thread_for(&source.name, || catch_unwind(AssertUnwindSafe(load))).unwrap_or_else(
            |panic| {
                let detail = format!("loading it failed unexpectedly: {}", panic_message(&*panic));
                Err(LoadError::Model { path: version.1.clone(), detail })
            },
        )?;
        self.fallbacks.tell_of(&model);
        Ok(model)
    }

    /// What is to happen when the last handle of a version is dropped.
    fn retirement(&self, name: &str, version: u64, load: LoadId) -> Retirement {
        let (shared, name) = (self.myself.clone(), name.to_owned());
        let ended = move || {
            if let Some(shared) = shared.upgrade() {
                shared.registry_mut().drained(&name, version, load);
                tracing::info!(model = name, version, "Model unloaded");
            }
        };
        Retirement { work: Arc::clone(&self.work), ended: Box::new(ended) }
    }

    /// `None`: there is no such model. Else the load that made what was unloaded, if it was ever loaded.
    fn unload(&self, name: &str) -> Option<Option<LoadId>> {
        let _alone = self.work.alone(name);
        let given_back = self.registry_mut().unload(name);
        lock(&self.holds).remove(name);
        match given_back {
            Some((given_back, load)) => {
                drop(given_back);
                Some(Some(load))
            }
            // One that was never loaded is unloaded already.
            None => {
                let names = discover::names(&self.config.path).unwrap_or_default();
                names.iter().any(|other| other == name).then_some(None)
            }
        }
    }

    /// What a client is told: where the repository lies is the operator's affair.
    fn without_paths(&self, text: &str) -> String {
        let path = &self.config.path;
        let root = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        let root = root.display().to_string();
        if root.is_empty() {
            text.to_owned()
        } else {
            text.replace(&format!("{}/", root.trim_end_matches('/')), "")
        }
    }

    /// What lies there cannot be loaded; what was served before still is.
    fn refuse(&self, name: &str, error: LoadError) -> LoadFailure {
        let mut registry = self.registry_mut();
        registry.want(name);
        registry.refused(name, &error.to_string());
        LoadFailure::Failed(error)
    }
}

/// A failure is told once: in the log, or as the reason why the server ends.
pub(crate) fn log_not_loaded(model: &str, error: &LoadError) {
    tracing::error!(model, %error, "A model could not be loaded");
}

fn stopping() -> ServingError {
    ServingError::Unavailable("The server is stopping.".to_owned())
}

#[cfg(test)]
mod tests;
