//! The one module that narrows wasmtime for the rest: compile once, a fresh instance per image.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use self::config::wasmtime_config;
use crate::budget::{Budget, Instance, Memory, MemoryMeter};
use crate::component::{EMBEDDED, bindings, wit};
use crate::lane::Lane;
use crate::ticker::Ticker;
use crate::watch::{Interrupted, Slice, Watch};
use crate::{ImageTensor, Limits, Preprocessed, Resize, SandboxConfig, SandboxError, convert};

/// A thread's own stack; what a guest's calls may use of it is less, for wasmtime and us.
pub(crate) const THREAD_STACK_BYTES: usize = 4 << 20;

/// Besides pixels, what a result holds: a few short strings.
const RESULT_SLACK_BYTES: usize = 1 << 20;

/// The answer to an image for which there is no room beside other work now.
const NO_ROOM: SandboxError = SandboxError::Busy { retry_after: Duration::from_millis(500) };

/// What a caller is told to wait at least who has waited in vain.
const LEAST_RETRY_AFTER: Duration = Duration::from_millis(10);

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
    /// By its header, or the time or the memory that it wants, it is work for this lane, and no quicker one.
    Meant {
        lane: Lane,
        /// Those that the header declares.
        pixels: u64,
    },
}

impl From<SandboxError> for Ended {
    fn from(error: SandboxError) -> Self {
        Self::Verdict(error)
    }
}

/// What a call gave, and the instance that gave it. To drop that is to make its memory anew, which the answer need not wait for.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    pub(crate) instance: Instance,
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
    ) -> Result<(wit::ImageInfo, R, Instance), Ended> {
        let mut instance = Instance::new(self.store(image.len(), allowance));
        let store = &mut instance.store;
        let _running = self.ticker.running();
        let guest = self.instantiate.instantiate(&mut *store);
        let guest = guest.map_err(|error| self.not_started(&error, image, store.data()))?;
        let images = guest.convoy_preprocess_images();
        let probed = images.call_probe(&mut *store, image, self.limits.max_pixels);
        let info = self.answer(probed, image, store)?;
        let size = self.size(&info)?;
        let meant = Lane::of(&info.format, size, resize);
        let pixels = u64::from(size.0) * u64::from(size.1);
        if meant > lane {
            return Err(Ended::Meant { lane: meant, pixels });
        }
        let budget = store.data_mut();
        budget.pixels = pixels;
        budget.memory.allow(self.limits.decode_memory(image.len(), size, resize), lane.memory());
        budget.watch.slice = lane.slice();
        // What wasmtime may copy out of the guest, however long a list it returns.
        store.set_hostcall_fuel(resize.pixel_bytes() + RESULT_SLACK_BYTES);
        let result = call(&guest, store);
        let value = self.answer(result, image, store)?;
        Ok((info, value, instance))
    }

    /// A store with what reading a header may use.
    fn store(&self, image_bytes: usize, allowance: Allowance) -> Store<Budget> {
        let Allowance { mut watch, meter } = allowance;
        watch.slice = Some(Slice::without_the_hosts(Limits::PROBE_TIME, Interrupted::Probe));
        let memory = Memory::new(self.limits.probe_memory(image_bytes), meter);
        let mut store = Store::new(&self.engine, Budget { memory, watch, pixels: 0 });
        store.limiter(|budget| &mut budget.memory);
        store.set_hostcall_fuel(RESULT_SLACK_BYTES);
        // Without a deadline a store would trap at once.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| match context.data_mut().watch.at_tick() {
            Some(reason) => Err(wasmtime::Error::new(reason)),
            None => Ok(UpdateDeadline::Continue(1)),
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
        let budget = store.data();
        let memory = &budget.memory;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) if memory.was_refused_by_meter() => Err(Ended::Verdict(NO_ROOM)),
            Ok(Err(_)) if memory.was_refused_by_lane() => Err(meant_slow(budget.pixels)),
            Ok(Err(wit::Error::OutOfMemory)) => Err(Ended::Verdict(out_of_memory(memory))),
            Ok(Err(error)) => Err(Ended::Verdict(convert::error(error, &self.limits))),
            Err(error) => Err(self.stopped(&error, image, budget)),
        }
    }

    /// Why there is no instance: one that needs more memory than it may have is no trap.
    fn not_started(&self, error: &wasmtime::Error, image: &[u8], budget: &Budget) -> Ended {
        let memory = &budget.memory;
        if memory.was_refused_by_meter() {
            NO_ROOM.into()
        } else if memory.was_refused() {
            out_of_memory(memory).into()
        } else {
            self.stopped(error, image, budget)
        }
    }

    /// What becomes of an image of so many pixels, if that is known, whose instance was interrupted, or never made.
    pub(crate) fn interrupted(&self, reason: Interrupted, pixels: u64) -> Ended {
        Ended::Verdict(match reason {
            Interrupted::Timeout => SandboxError::OutOfTime { limit: self.limits.timeout },
            Interrupted::Probe => SandboxError::OutOfTime { limit: Limits::PROBE_TIME },
            // Nobody hears the verdict on an abandoned image.
            Interrupted::Deadline | Interrupted::Abandoned => SandboxError::DeadlineExceeded,
            Interrupted::Stopping => SandboxError::Stopped,
            Interrupted::Late => self.busy(),
            Interrupted::Evicted => NO_ROOM,
            Interrupted::Slow => return meant_slow(pixels),
        })
    }

    /// The answer to an image that has waited for as long as one may.
    pub(crate) fn busy(&self) -> SandboxError {
        SandboxError::Busy { retry_after: self.limits.timeout.max(LEAST_RETRY_AFTER) }
    }

    /// Why an instance ended without a result.
    fn stopped(&self, error: &wasmtime::Error, image: &[u8], budget: &Budget) -> Ended {
        let &Budget { ref memory, pixels, .. } = budget;
        if let Some(&reason) = error.downcast_ref::<Interrupted>() {
            return self.interrupted(reason, pixels);
        }
        // An allocator that got no memory stops its program so. A stack that is too deep, or a wild pointer, has another cause.
        let gave_up = error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached);
        if gave_up && memory.was_refused_by_meter() {
            return NO_ROOM.into();
        }
        if gave_up && memory.was_refused_by_lane() {
            return meant_slow(pixels);
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

fn meant_slow(pixels: u64) -> Ended {
    Ended::Meant { lane: Lane::Slow, pixels }
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

mod config;
