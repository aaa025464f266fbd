//! The handle the services share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::budget::{MemoryMeter, Watch};
use crate::engine::{Allowance, Guest, THREAD_STACK_BYTES};
use crate::pool::{Pool, Refused, Task};
use crate::{ImageTensor, Limits, Preprocessed, Resize, SandboxConfig, SandboxError};

/// The longest side of a target, in pixels.
const MAX_SIDE: u32 = 4096;

/// A pool of threads that preprocess images in fresh guest instances. Cheap to clone; the threads end when the
/// last handle drops.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
    meter: Option<Arc<dyn MemoryMeter>>,
}

struct Inner {
    // Dropped before the guest: what runs is stopped at a tick of its clock.
    pool: Pool<Call>,
    guest: Arc<Guest>,
}

impl Sandbox {
    /// Compiles the component and starts the threads. Blocks for about a second.
    ///
    /// # Errors
    /// [`SandboxError::Component`] if the component imports anything, is of another world or cannot be compiled, or if
    /// the machine cannot give what the configuration asks for.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        if config.workers == 0 {
            return Err(SandboxError::Component { detail: "it has no thread to run on".to_owned() });
        }
        let guest = Arc::new(Guest::new(&config)?);
        let pool =
            Pool::start("sandbox", config.workers, config.queue, THREAD_STACK_BYTES).map_err(|error| {
                SandboxError::Component { detail: format!("its threads cannot be started: {error}") }
            })?;
        Ok(Self { inner: Arc::new(Inner { pool, guest }), meter: None })
    }

    /// What one image may use.
    pub fn limits(&self) -> &Limits {
        self.inner.guest.limits()
    }

    /// The same sandbox; `meter` is told of the guest's memory in the calls that are made through this handle.
    #[must_use]
    pub fn metered(&self, meter: Arc<dyn MemoryMeter>) -> Self {
        Self { inner: Arc::clone(&self.inner), meter: Some(meter) }
    }

    /// Decodes an image and brings it to the size a model wants.
    ///
    /// Never waits for a place in the queue. With a `deadline`, it answers by then, and what is queued or runs is
    /// given up; so it is when the returned future is dropped.
    ///
    /// # Errors
    /// See [`SandboxError`], whose variants say whose fault it is.
    pub async fn tensor(
        &self,
        image: Bytes,
        resize: Resize,
        deadline: Option<Instant>,
    ) -> Result<ImageTensor, SandboxError> {
        self.call(image, resize, deadline, Work::Tensor).await
    }

    /// Decodes an image, resizes it, measures it and encodes it as JPEG again.
    ///
    /// # Errors
    /// As [`Sandbox::tensor`].
    pub async fn preprocess(
        &self,
        image: Bytes,
        resize: Resize,
        deadline: Option<Instant>,
    ) -> Result<Preprocessed, SandboxError> {
        self.call(image, resize, deadline, Work::Preprocess).await
    }

    async fn call<R>(
        &self,
        image: Bytes,
        resize: Resize,
        deadline: Option<Instant>,
        work: impl FnOnce(oneshot::Sender<Result<R, SandboxError>>) -> Work,
    ) -> Result<R, SandboxError> {
        self.check(&image, &resize, deadline)?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let _caller = Caller(Arc::clone(&abandoned));
        let (reply, answer) = oneshot::channel();
        let guest = Arc::clone(&self.inner.guest);
        let meter = self.meter.clone();
        let call = Call { guest, image, resize, deadline, abandoned, meter, work: work(reply) };
        self.inner.pool.submit(call).map_err(|refused| match refused {
            Refused::Full { retry_after } => SandboxError::Busy { retry_after },
            Refused::Stopping => SandboxError::Stopped,
        })?;
        let answer = match deadline {
            Some(deadline) => {
                timeout_at(deadline.into(), answer).await.map_err(|_| SandboxError::DeadlineExceeded)?
            }
            None => answer.await,
        };
        answer.unwrap_or_else(|_| Err(self.unanswered(deadline)))
    }

    fn check(&self, image: &Bytes, resize: &Resize, deadline: Option<Instant>) -> Result<(), SandboxError> {
        let limits = self.limits();
        if image.is_empty() {
            return Err(SandboxError::Empty);
        }
        if image.len() > limits.max_image_bytes {
            return Err(SandboxError::TooLarge { bytes: image.len(), limit: limits.max_image_bytes });
        }
        for (name, side) in [("width", resize.width), ("height", resize.height)] {
            if side == 0 || side > MAX_SIDE {
                let detail = format!("the {name} is {side}, it must be 1 to {MAX_SIDE} pixels");
                return Err(SandboxError::InvalidOptions { detail });
            }
        }
        if has_passed(deadline) {
            return Err(SandboxError::DeadlineExceeded);
        }
        Ok(())
    }

    /// Why a call was dropped without an answer.
    fn unanswered(&self, deadline: Option<Instant>) -> SandboxError {
        if has_passed(deadline) {
            SandboxError::DeadlineExceeded
        } else if self.inner.pool.is_stopping() {
            SandboxError::Stopped
        } else {
            SandboxError::Component { detail: "its thread failed on this image, as the log says".to_owned() }
        }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("limits", self.limits()).finish_non_exhaustive()
    }
}

/// Lives as long as somebody waits for the answer.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One image on its way through the pool.
struct Call {
    guest: Arc<Guest>,
    image: Bytes,
    resize: Resize,
    deadline: Option<Instant>,
    abandoned: Arc<AtomicBool>,
    meter: Option<Arc<dyn MemoryMeter>>,
    work: Work,
}

enum Work {
    Tensor(oneshot::Sender<Result<ImageTensor, SandboxError>>),
    Preprocess(oneshot::Sender<Result<Preprocessed, SandboxError>>),
}

impl Task for Call {
    fn is_wanted(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed) && !has_passed(self.deadline)
    }

    fn run(self, stopping: &Arc<AtomicBool>) {
        let Self { guest, image, resize, deadline, abandoned, meter, work } = self;
        let watch = Watch::new(guest.limits().timeout, deadline, abandoned, Arc::clone(stopping));
        let allowance = Allowance { watch, meter };
        // An answer that cannot be sent is one that nobody waits for any more.
        match work {
            Work::Tensor(reply) => drop(reply.send(guest.tensor(&image, &resize, allowance))),
            Work::Preprocess(reply) => drop(reply.send(guest.preprocess(&image, &resize, allowance))),
        }
    }
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
