//! The one module that narrows wasmtime for the rest: compile once, a fresh instance per image.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, Trap, UpdateDeadline,
};

use crate::budget::{Interrupted, MAX_TABLE_ELEMENTS, Memory, MemoryMeter, Watch};
use crate::component::{EMBEDDED, bindings, wit};
use crate::ticker::Ticker;
use crate::{ImageTensor, Limits, Preprocessed, Resize, SandboxConfig, SandboxError, convert};

/// What a guest's calls may use of its thread's stack. The thread's own is larger, for wasmtime and us.
const GUEST_STACK_BYTES: usize = 1 << 20;
pub(crate) const THREAD_STACK_BYTES: usize = 4 << 20;

/// Besides pixels, what a result holds: a few short strings.
const RESULT_SLACK_BYTES: usize = 1 << 20;

/// Core instances in a component, memories in it, tables in it. The embedded one has one of each.
const MAX_CORE_INSTANCES: u32 = 8;
const MAX_MEMORIES: u32 = 1;
const MAX_TABLES: u32 = 4;

/// The answer to an image for which there is no room beside other work now.
const NO_ROOM: SandboxError = SandboxError::Busy { retry_after: Duration::from_millis(500) };

/// What one call may use: its time, and, where somebody counts it, memory beside other work.
pub(crate) struct Allowance {
    pub(crate) watch: Watch,
    pub(crate) meter: Option<Arc<dyn MemoryMeter>>,
}

/// A compiled component, ready to be instantiated.
pub(crate) struct Guest {
    engine: Engine,
    ticker: Ticker,
    instantiate: bindings::PreprocessorPre<Memory>,
    limits: Limits,
}

impl Guest {
    /// Compiles the component, about a second's work, and refuses one that imports anything or is of another world.
    pub(crate) fn new(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let engine = Engine::new(&wasmtime_config(config))
            .map_err(|error| unusable("the sandbox cannot be set up on this machine", &error))?;
        let component = match &config.component {
            Some(path) => compile(&engine, &read(path)?),
            None => compile(&engine, EMBEDDED),
        }?;
        let imports: Vec<String> =
            component.component_type().imports(&engine).map(|(name, _)| name.to_owned()).collect();
        if !imports.is_empty() {
            return Err(SandboxError::Component {
                detail: format!(
                    "it imports {}, and a preprocessing component may import nothing",
                    imports.join(", ")
                ),
            });
        }
        // Nothing is ever defined in this linker.
        let instantiate = Linker::new(&engine)
            .instantiate_pre(&component)
            .and_then(bindings::PreprocessorPre::new)
            .map_err(|error| unusable("it is not of the world convoy:preprocess/preprocessor", &error))?;
        Ok(Self { ticker: Ticker::start(&engine)?, engine, instantiate, limits: config.limits })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs the component's `tensor` in a fresh instance.
    pub(crate) fn tensor(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
    ) -> Result<ImageTensor, SandboxError> {
        let (info, tensor) = self.call(image, resize, allowance, |guest, store| {
            guest.convoy_preprocess_images().call_tensor(store, convert::options(resize))
        })?;
        convert::tensor(tensor, info, resize)
    }

    /// Runs the component's `preprocess` in a fresh instance.
    pub(crate) fn preprocess(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
    ) -> Result<Preprocessed, SandboxError> {
        let (info, preprocessed) = self.call(image, resize, allowance, |guest, store| {
            guest.convoy_preprocess_images().call_preprocess(store, convert::options(resize))
        })?;
        convert::preprocessed(preprocessed, info, resize)
    }

    /// Probes an image in a fresh instance, and makes the one call that the instance is for.
    fn call<R>(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
        call: impl FnOnce(&bindings::Preprocessor, &mut Store<Memory>) -> wasmtime::Result<Result<R, wit::Error>>,
    ) -> Result<(wit::ImageInfo, R), SandboxError> {
        let Allowance { watch, meter } = allowance;
        let mut store = Store::new(&self.engine, Memory::new(self.limits.memory_bytes, meter));
        store.limiter(|memory| memory);
        // What wasmtime may copy out of the guest, however long a list it returns.
        store.set_hostcall_fuel(resize.pixel_bytes() + RESULT_SLACK_BYTES);
        // Without a deadline a store would trap at once.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| match watch.interrupts(Instant::now()) {
            Some(reason) => Err(wasmtime::Error::new(reason)),
            None => Ok(UpdateDeadline::Continue(1)),
        });
        let _running = self.ticker.running();
        let probe_and_call = |store: &mut Store<Memory>| {
            let guest = self.instantiate.instantiate(&mut *store)?;
            let images = guest.convoy_preprocess_images();
            match images.call_probe(&mut *store, image, self.limits.max_pixels)? {
                Ok(info) => Ok(call(&guest, store)?.map(|result| (info, result))),
                Err(error) => Ok(Err(error)),
            }
        };
        let result = probe_and_call(&mut store);
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) if store.data().was_refused_by_meter() => Err(NO_ROOM),
            Ok(Err(error)) => Err(convert::error(error, &self.limits)),
            Err(error) => Err(self.verdict(&error, store.data())),
        }
    }

    /// Why an instance ended without a result.
    fn verdict(&self, error: &wasmtime::Error, memory: &Memory) -> SandboxError {
        match error.downcast_ref::<Interrupted>() {
            Some(Interrupted::Timeout) => return SandboxError::OutOfTime { limit: self.limits.timeout },
            // Nobody hears the verdict on an abandoned image.
            Some(Interrupted::Deadline | Interrupted::Abandoned) => return SandboxError::DeadlineExceeded,
            Some(Interrupted::Stopping) => return SandboxError::Stopped,
            None => {}
        }
        if memory.was_refused_by_meter() {
            return NO_ROOM;
        }
        if memory.was_refused() {
            return SandboxError::OutOfMemory { limit_bytes: self.limits.memory_bytes };
        }
        let detail = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => format!("{:#}", error.root_cause()),
        };
        SandboxError::Trapped { detail }
    }
}

fn wasmtime_config(config: &SandboxConfig) -> Config {
    let instances = u32::try_from(config.workers).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_memory_size(config.limits.memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS);
    let mut wasmtime = Config::new();
    wasmtime
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    wasmtime
}

fn read(path: &Path) -> Result<Vec<u8>, SandboxError> {
    fs::read(path).map_err(|error| SandboxError::Component {
        detail: format!("{} cannot be read: {error}", path.display()),
    })
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, SandboxError> {
    let started = Instant::now();
    let component =
        Component::from_binary(engine, bytes).map_err(|error| unusable("it cannot be compiled", &error))?;
    tracing::debug!(
        component_bytes = bytes.len(),
        duration_ms = started.elapsed().as_millis() as u64,
        "compiled the preprocessing component"
    );
    Ok(component)
}

fn unusable(what: &str, error: &wasmtime::Error) -> SandboxError {
    SandboxError::Component { detail: format!("{what}: {error:#}") }
}
