//! The one module that narrows wasmtime for the rest: compile once, a fresh instance per image.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, Trap, UpdateDeadline,
};

use crate::budget::{Budget, Interrupted, MAX_TABLE_ELEMENTS, Memory, MemoryMeter, Slice, Watch};
use crate::component::{EMBEDDED, bindings, wit};
use crate::lane::Lane;
use crate::ticker::Ticker;
use crate::{ImageTensor, Limits, Preprocessed, Resize, SandboxConfig, SandboxError, convert};

/// What a guest's calls may use of its thread's stack. The thread's own is larger, for wasmtime and us.
const GUEST_STACK_BYTES: usize = 1 << 20;
pub(crate) const THREAD_STACK_BYTES: usize = 4 << 20;

/// Besides pixels, what a result holds: a few short strings.
const RESULT_SLACK_BYTES: usize = 1 << 20;

/// What is made anew after an image by writing it, instead of being given back to the system: each page of it that the next
/// image touches is then no page fault, of which a photo has 180. It is so much of the memory's beginning, and of each table's.
const KEPT_RESIDENT_BYTES: usize = 4 << 20;

/// Core instances in a component, memories in it, tables in it. The embedded one has one of each.
const MAX_CORE_INSTANCES: u32 = 8;
const MAX_MEMORIES: u32 = 1;
const MAX_TABLES: u32 = 4;

/// The answer to an image for which there is no room beside other work now.
const NO_ROOM: SandboxError = SandboxError::Busy { retry_after: Duration::from_millis(500) };

/// A component is no larger: that of a whole interpreter has about forty.
const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// What one call may use: its time, and, where somebody counts it, memory beside other work.
pub(crate) struct Allowance {
    pub(crate) watch: Watch,
    pub(crate) meter: Option<Arc<dyn MemoryMeter>>,
}

/// Why a call has no result.
pub(crate) enum Ended {
    /// That is the verdict.
    Verdict(SandboxError),
    /// By its header, or the memory that it wants, it is work for this lane, and no quicker one.
    Meant(Lane),
    /// It took more time than its lane allows.
    TooSlow,
}

impl From<SandboxError> for Ended {
    fn from(error: SandboxError) -> Self {
        Self::Verdict(error)
    }
}

/// What a call gave, and the instance that gave it. To drop that is to make its memory anew, which the answer need not wait for.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    pub(crate) instance: Store<Budget>,
}

/// A compiled component, ready to be instantiated.
pub(crate) struct Guest {
    engine: Engine,
    ticker: Ticker,
    instantiate: bindings::PreprocessorPre<Budget>,
    limits: Limits,
    component_sha256: String,
}

impl Guest {
    /// Compiles the component, about a second's work, and refuses one that imports anything, is of another world, or
    /// does not start within the limits of an image's header.
    pub(crate) fn new(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let engine = Engine::new(&wasmtime_config(config))
            .map_err(|error| unusable("the sandbox cannot be set up on this machine", &error))?;
        let bytes = match &config.component {
            Some(path) => Cow::Owned(read(path)?),
            None => Cow::Borrowed(EMBEDDED),
        };
        let component = compile(&engine, &bytes)?;
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
        let guest = Self {
            ticker: Ticker::start(&engine)?,
            engine,
            instantiate,
            limits: config.limits,
            component_sha256: sha256(&bytes),
        };
        guest.starts()?;
        Ok(guest)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn component_sha256(&self) -> &str {
        &self.component_sha256
    }

    /// Runs the component's `tensor` in a fresh instance.
    pub(crate) fn tensor(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
        lane: Lane,
    ) -> Result<Done<ImageTensor>, Ended> {
        let (info, tensor, instance) = self.call(image, resize, allowance, lane, |guest, store| {
            guest.convoy_preprocess_images().call_tensor(store, convert::options(resize))
        })?;
        Ok(Done { value: convert::tensor(tensor, info, resize)?, instance })
    }

    /// Runs the component's `preprocess` in a fresh instance.
    pub(crate) fn preprocess(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
        lane: Lane,
    ) -> Result<Done<Preprocessed>, Ended> {
        let (info, preprocessed, instance) = self.call(image, resize, allowance, lane, |guest, store| {
            guest.convoy_preprocess_images().call_preprocess(store, convert::options(resize))
        })?;
        Ok(Done { value: convert::preprocessed(preprocessed, info, resize)?, instance })
    }

    /// Probes an image in a fresh instance, and makes the one call that the instance is for.
    fn call<R>(
        &self,
        image: &[u8],
        resize: &Resize,
        allowance: Allowance,
        lane: Lane,
        call: impl FnOnce(&bindings::Preprocessor, &mut Store<Budget>) -> wasmtime::Result<Result<R, wit::Error>>,
    ) -> Result<(wit::ImageInfo, R, Store<Budget>), Ended> {
        let mut store = self.store(image.len(), allowance);
        let _running = self.ticker.running();
        let guest = self.instantiate.instantiate(&mut store);
        let guest = guest.map_err(|error| self.not_started(&error, image, &store.data().memory))?;
        let images = guest.convoy_preprocess_images();
        let probed = images.call_probe(&mut store, image, self.limits.max_pixels);
        let info = self.answer(probed, image, &store)?;
        let size = self.size(&info)?;
        let meant = Lane::of(&info.format, size, resize);
        if meant > lane {
            return Err(Ended::Meant(meant));
        }
        let budget = store.data_mut();
        budget.memory.allow(self.limits.decode_memory(image.len(), size, resize), lane.memory());
        budget.watch.slice = lane.slice();
        // What wasmtime may copy out of the guest, however long a list it returns.
        store.set_hostcall_fuel(resize.pixel_bytes() + RESULT_SLACK_BYTES);
        let result = call(&guest, &mut store);
        Ok((info, self.answer(result, image, &store)?, store))
    }

    /// A store with what reading a header may use.
    fn store(&self, image_bytes: usize, allowance: Allowance) -> Store<Budget> {
        let Allowance { mut watch, meter } = allowance;
        watch.slice = Some(Slice::without_the_hosts(Limits::PROBE_TIME, Interrupted::Probe));
        let memory = Memory::new(self.limits.probe_memory(image_bytes), meter);
        let mut store = Store::new(&self.engine, Budget { memory, watch });
        store.limiter(|budget| &mut budget.memory);
        store.set_hostcall_fuel(RESULT_SLACK_BYTES);
        // Without a deadline a store would trap at once.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            match context.data_mut().watch.interrupts(Instant::now()) {
                Some(reason) => Err(wasmtime::Error::new(reason)),
                None => Ok(UpdateDeadline::Continue(1)),
            }
        });
        store
    }

    /// Whether an instance can be made at all: that of every image would fail as this one.
    fn starts(&self) -> Result<(), SandboxError> {
        let watch = Watch::new(Instant::now() + self.limits.timeout, None, Arc::default(), Arc::default());
        let mut store = self.store(0, Allowance { watch, meter: None });
        let _running = self.ticker.running();
        match self.instantiate.instantiate(&mut store) {
            Ok(_) => Ok(()),
            Err(error) => Err(unusable(
                &format!(
                    "an instance of it cannot be started within {} bytes of memory and {} ms",
                    self.limits.probe_memory(0),
                    Limits::PROBE_TIME.as_millis()
                ),
                &error,
            )),
        }
    }

    /// What the header declares, which the host believes of no guest: it may be somebody else's.
    fn size(&self, info: &wit::ImageInfo) -> Result<(u32, u32), SandboxError> {
        let &wit::ImageInfo { width, height, .. } = info;
        let limit = self.limits.max_pixels;
        match u64::from(width) * u64::from(height) {
            0 => Err(SandboxError::Component { detail: "it found an image without pixels".to_owned() }),
            pixels if pixels > limit => Err(SandboxError::TooManyPixels { width, height, limit }),
            _ => Ok((width, height)),
        }
    }

    /// What a call into an instance gave, or why it gave nothing.
    fn answer<R>(
        &self,
        result: wasmtime::Result<Result<R, wit::Error>>,
        image: &[u8],
        store: &Store<Budget>,
    ) -> Result<R, Ended> {
        let memory = &store.data().memory;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) if memory.was_refused_by_meter() => Err(Ended::Verdict(NO_ROOM)),
            Ok(Err(_)) if memory.was_refused_by_lane() => Err(Ended::Meant(Lane::Slow)),
            Ok(Err(wit::Error::OutOfMemory)) => Err(Ended::Verdict(out_of_memory(memory))),
            Ok(Err(error)) => Err(Ended::Verdict(convert::error(error, &self.limits))),
            Err(error) => Err(self.stopped(&error, image, memory)),
        }
    }

    /// Why there is no instance: one that needs more memory than it may have is no trap.
    fn not_started(&self, error: &wasmtime::Error, image: &[u8], memory: &Memory) -> Ended {
        if memory.was_refused_by_meter() {
            NO_ROOM.into()
        } else if memory.was_refused() {
            out_of_memory(memory).into()
        } else {
            self.stopped(error, image, memory)
        }
    }

    /// Why an instance ended without a result.
    fn stopped(&self, error: &wasmtime::Error, image: &[u8], memory: &Memory) -> Ended {
        match error.downcast_ref::<Interrupted>() {
            Some(Interrupted::Timeout) => {
                return SandboxError::OutOfTime { limit: self.limits.timeout }.into();
            }
            Some(Interrupted::Probe) => {
                return SandboxError::OutOfTime { limit: Limits::PROBE_TIME }.into();
            }
            // Nobody hears the verdict on an abandoned image.
            Some(Interrupted::Deadline | Interrupted::Abandoned) => {
                return SandboxError::DeadlineExceeded.into();
            }
            Some(Interrupted::Stopping) => return SandboxError::Stopped.into(),
            Some(Interrupted::Slow) => return Ended::TooSlow,
            None => {}
        }
        // An allocator that got no memory stops its program so. A stack that is too deep, or a wild pointer, has another cause.
        let gave_up = error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached);
        if gave_up && memory.was_refused_by_meter() {
            return NO_ROOM.into();
        }
        if gave_up && memory.was_refused_by_lane() {
            return Ended::Meant(Lane::Slow);
        }
        if gave_up && memory.was_refused() {
            return out_of_memory(memory).into();
        }
        let detail = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => format!("{:#}", error.root_cause()),
        };
        SandboxError::Trapped { detail, image_sha256: sha256(image) }.into()
    }
}

fn out_of_memory(memory: &Memory) -> SandboxError {
    SandboxError::OutOfMemory { limit_bytes: memory.limit_bytes() }
}

/// In lower-case hex.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn wasmtime_config(config: &SandboxConfig) -> Config {
    // Each lane has as many threads, and one more instance is made to see whether the component starts.
    let workers = u32::try_from(config.workers).unwrap_or(u32::MAX);
    let instances = workers.saturating_mul(Lane::ALL.len() as u32).saturating_add(1);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_memory_size(config.limits.memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_RESIDENT_BYTES)
        .table_keep_resident(KEPT_RESIDENT_BYTES)
        // A scan for the pages that were written passes over those that the system has swapped out, and the next image's
        // instance would find them (bytecodealliance/wasmtime#14357). Without it the beginning of the memory is made anew
        // whatever was written, and the rest given back.
        .pagemap_scan(Enabled::No);
    let mut wasmtime = Config::new();
    wasmtime
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    wasmtime
}

fn read(path: &Path) -> Result<Vec<u8>, SandboxError> {
    let failed = |detail: String| SandboxError::Component {
        detail: format!("{} cannot be read: {detail}", path.display()),
    };
    let bytes = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes > MAX_COMPONENT_BYTES {
        return Err(failed(format!("it has {bytes} bytes, more than {MAX_COMPONENT_BYTES}")));
    }
    fs::read(path).map_err(|error| failed(error.to_string()))
}

/// Tells apart what is no component at all by its first bytes: the magic number, then a version and a layer (Component
/// Model, Binary.md: layer 1 with version 13; a core module has layer 0). Wasmtime's own words for it are for its authors.
fn check_preamble(bytes: &[u8]) -> Result<(), SandboxError> {
    let detail = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            "it is a core module, not a component: make one of it with `wasm-tools component new`"
        }
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => return Ok(()),
        _ => "it is no WebAssembly file",
    };
    Err(SandboxError::Component { detail: detail.to_owned() })
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, SandboxError> {
    check_preamble(bytes)?;
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
    // One line: some of Wasmtime's messages go over several.
    let error = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    SandboxError::Component { detail: format!("{what}: {error}") }
}
