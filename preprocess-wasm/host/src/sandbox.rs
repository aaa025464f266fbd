//! The handle the services share.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::budget::MemoryMeter;
use crate::engine::{Allowance, Done, Ended, Guest, THREAD_STACK_BYTES};
use crate::lane::Lane;
use crate::pool::{NotTaken, Pool, Refused, Task, Threads};
use crate::turns::Turns;
use crate::watch::{Interrupted, Watch};
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
    // The pools are dropped before the guest: what runs is stopped at a tick of its clock. And the quick one before those to
    // which it hands on.
    quick: Pool<Call>,
    onward: Arc<Onward>,
    turns: Arc<Turns>,
    guest: Arc<Guest>,
    config: SandboxConfig,
}

impl Sandbox {
    /// Compiles the component and starts the threads. Blocks for about a second.
    ///
    /// # Errors
    /// [`SandboxError::Component`] if the component imports anything, is of another world, cannot be compiled or does not
    /// start within the limits, or if the machine cannot give what the configuration asks for.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        if config.workers == 0 {
            return Err(SandboxError::Component { detail: "it has no thread to run on".to_owned() });
        }
        let guest = Arc::new(Guest::new(&config)?);
        let pool = |lane: Lane| {
            let threads = Threads {
                name: lane.thread_name(),
                count: lane.threads(config.workers),
                stack_bytes: THREAD_STACK_BYTES,
                niceness: lane.niceness(),
            };
            Pool::start(&threads, config.queue).map_err(|error| SandboxError::Component {
                detail: format!("its threads cannot be started: {error}"),
            })
        };
        let onward =
            |lane: Lane, then| Ok::<_, SandboxError>(Arc::new(Onward { lane, pool: pool(lane)?, then }));
        let slow = onward(Lane::Slow, None)?;
        let large = onward(Lane::Large, Some(slow))?;
        let quick = pool(Lane::Quick)?;
        let places = Lane::places(config.workers);
        let turns = Arc::new(Turns::new(places, places.saturating_mul(config.limits.memory_bytes)));
        Ok(Self { inner: Arc::new(Inner { quick, onward: large, turns, guest, config }), meter: None })
    }

    /// A sandbox with the same limits for another component, the one at `path`. It has threads and queues of its own: a
    /// component that loops makes nobody wait for a thread but its own images. Blocks for about a second.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn with_component(&self, path: &Path) -> Result<Self, SandboxError> {
        Self::new(SandboxConfig { component: Some(path.to_owned()), ..self.inner.config.clone() })
    }

    /// What one image may use.
    pub fn limits(&self) -> &Limits {
        self.inner.guest.limits()
    }

    /// SHA-256 of the component that was compiled, whatever lies at its path by now, in lower-case hex.
    pub fn component_sha256(&self) -> &str {
        self.inner.guest.component_sha256()
    }

    /// The same sandbox; `meter` is told of the guest's memory in the calls that are made through this handle.
    #[must_use]
    pub fn metered(&self, meter: Arc<dyn MemoryMeter>) -> Self {
        Self { inner: Arc::clone(&self.inner), meter: Some(meter) }
    }

    /// Decodes an image and brings it to the size a model wants.
    ///
    /// Never waits for a place in the queue. With a `deadline`, it answers by then, and without one, or with a late one, by
    /// [`Limits::answer_time`]; what is queued or runs is then given up. So it is when the returned future is dropped.
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
        let onward = Some(Arc::clone(&self.inner.onward));
        let turns = Arc::clone(&self.inner.turns);
        let (left, patience) = (self.limits().run_time(), self.limits().answer_time());
        let arrived = Instant::now();
        let call = Call {
            guest,
            lane: Lane::Quick,
            onward,
            turns,
            image,
            resize,
            arrived,
            deadline,
            left,
            pixels: 0,
            abandoned,
            meter,
            work: work(reply),
        };
        self.inner.quick.submit(call).map_err(|not_taken| refusal(not_taken.reason))?;
        // Whoever sets no deadline does not wait for ever either.
        let latest = after(arrived, patience);
        let end = deadline.map_or(latest, |deadline| deadline.min(latest));
        let Ok(answer) = timeout_at(end.into(), answer).await else {
            return Err(self.too_late(deadline));
        };
        answer.unwrap_or_else(|_| Err(self.unanswered(deadline)))
    }

    /// Why nobody waits for an answer any longer.
    fn too_late(&self, deadline: Option<Instant>) -> SandboxError {
        if has_passed(deadline) {
            SandboxError::DeadlineExceeded
        } else {
            // It ran for as long as any may, at most: it has spent the rest in queues.
            self.inner.guest.busy()
        }
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
        } else if self.inner.quick.is_stopping() {
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

/// One image on its way through the lanes.
struct Call {
    guest: Arc<Guest>,
    /// Where it is.
    lane: Lane,
    /// Where it goes if it is no work for that. The slowest lane is for any.
    onward: Option<Arc<Onward>>,
    /// Those of the slowest lane.
    turns: Arc<Turns>,
    image: Bytes,
    resize: Resize,
    arrived: Instant,
    deadline: Option<Instant>,
    /// How long it may yet run, on threads of all lanes together.
    left: Duration,
    /// Those that its header declares; none until that was read.
    pixels: u64,
    abandoned: Arc<AtomicBool>,
    meter: Option<Arc<dyn MemoryMeter>>,
    work: Work,
}

/// A lane to which images are handed on, and those behind it.
struct Onward {
    lane: Lane,
    // It is dropped before those to which it hands on.
    pool: Pool<Call>,
    then: Option<Arc<Onward>>,
}

/// What is to be done, and who waits for it.
enum Work {
    Tensor(oneshot::Sender<Result<ImageTensor, SandboxError>>),
    Preprocess(oneshot::Sender<Result<Preprocessed, SandboxError>>),
}

impl Work {
    fn refuse(self, error: SandboxError) {
        // An answer that cannot be sent is one that nobody waits for any more.
        match self {
            Self::Tensor(reply) => drop(reply.send(Err(error))),
            Self::Preprocess(reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Task for Call {
    fn is_wanted(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed) && !has_passed(self.deadline)
    }

    /// What is begun must have time to end: were it begun however late, and given up soon after, threads would be at work on
    /// images that nobody gets, for as long as more come than they can do.
    fn unless_late(self) -> Option<Self> {
        if Instant::now() < self.begin_by() {
            return Some(self);
        }
        let refused = self.guest.busy();
        self.work.refuse(refused);
        None
    }

    fn run(mut self, stopping: &Arc<AtomicBool>) {
        let lane = self.lane;
        let started = Instant::now();
        let allowance = match self.allowance(started, stopping) {
            Ok(allowance) => allowance,
            Err(reason) => {
                let ended = self.guest.interrupted(reason, self.pixels);
                return self.end(ended);
            }
        };
        let (guest, image, resize) = (&self.guest, &self.image, &self.resize);
        let ended = match self.work {
            Work::Tensor(reply) => match guest.tensor(image, resize, allowance, lane) {
                Ok(Done { value, instance }) => {
                    // An answer that cannot be sent is one that nobody waits for any more.
                    let _ = reply.send(Ok(value));
                    return drop(instance);
                }
                Err(ended) => {
                    self.work = Work::Tensor(reply);
                    ended
                }
            },
            Work::Preprocess(reply) => match guest.preprocess(image, resize, allowance, lane) {
                Ok(Done { value, instance }) => {
                    let _ = reply.send(Ok(value));
                    return drop(instance);
                }
                Err(ended) => {
                    self.work = Work::Preprocess(reply);
                    ended
                }
            },
        };
        self.left = self.left.saturating_sub(started.elapsed());
        self.end(ended);
    }
}

impl Call {
    /// When it must have begun to have time to end before its caller goes: it has waited for as long as one may by then.
    fn begin_by(&self) -> Instant {
        let limits = self.guest.limits();
        let ran = limits.run_time().saturating_sub(self.left);
        after(self.arrived, limits.timeout.saturating_add(ran))
    }

    /// What it may use on this thread, once it is its turn.
    fn allowance(&self, started: Instant, stopping: &Arc<AtomicBool>) -> Result<Allowance, Interrupted> {
        let (abandoned, stopping) = (Arc::clone(&self.abandoned), Arc::clone(stopping));
        let watch = Watch::new(after(started, self.left), self.deadline, abandoned, stopping);
        if self.lane < Lane::Slow {
            return Ok(Allowance { watch, meter: self.meter.clone() });
        }
        let patience = self.begin_by().saturating_duration_since(started);
        let turn = Arc::new(self.turns.join(self.pixels, patience, self.meter.clone()));
        let watch = watch.taking_turns(Arc::clone(&turn))?;
        Ok(Allowance { watch, meter: Some(turn) })
    }

    fn end(mut self, ended: Ended) {
        match ended {
            Ended::Verdict(error) => self.work.refuse(error),
            Ended::Meant { lane, pixels } => {
                self.pixels = pixels;
                self.begin_again(lane);
            }
        }
    }

    /// Goes on to this lane, which is one of those that are left.
    fn begin_again(mut self, lane: Lane) {
        let mut onward = self.onward.take();
        while let Some(quicker) = onward.as_ref().filter(|next| next.lane < lane) {
            onward = quicker.then.clone();
        }
        let Some(next) = onward else { unreachable!("nothing is beyond the slowest lane") };
        (self.lane, self.onward) = (next.lane, next.then.clone());
        if let Err(NotTaken { task, reason }) = next.pool.submit(self) {
            task.work.refuse(refusal(reason));
        }
    }
}

fn refusal(refused: Refused) -> SandboxError {
    match refused {
        Refused::Full { retry_after } => SandboxError::Busy { retry_after },
        Refused::Stopping => SandboxError::Stopped,
    }
}

/// A time so far ahead that the clock has no word for it is a year.
fn after(now: Instant, time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now.checked_add(time).unwrap_or_else(|| now + YEAR)
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

#[cfg(test)]
mod tests;
