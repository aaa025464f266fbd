//! The end of a version: once nobody holds it any more, its threads end and its memory is returned, on a thread of
//! its own. And the count of what is under way, so that a server that stops can wait for it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use sandbox::Sandbox;
use tokio::sync::watch;

use super::kept_profile::KeptProfile;
use crate::scheduler::{Scheduler, lock};

/// Loads, unloads and ends of versions that are under way.
pub(crate) struct Work {
    under_way: Mutex<UnderWay>,
    ended: Condvar,
    /// Changes whenever something ends.
    ends: watch::Sender<()>,
    closing: AtomicBool,
}

#[derive(Default)]
struct UnderWay {
    count: usize,
    /// Models that are being loaded or unloaded.
    models: HashSet<String>,
}

/// Something under way, until it is dropped.
pub(crate) struct Working(Arc<Work>);

/// The only load or unload of a model that is under way, until it is dropped.
pub(crate) struct Alone<'a> {
    work: &'a Work,
    model: String,
}

impl Work {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::default(),
            ended: Condvar::new(),
            ends: watch::Sender::new(()),
            closing: AtomicBool::new(false),
        })
    }

    /// Counts something, whatever it is.
    pub(crate) fn begin(self: &Arc<Self>) -> Working {
        lock(&self.under_way).count += 1;
        Working(Arc::clone(self))
    }

    /// Counts something, unless `limit` are under way.
    pub(crate) fn begin_below(self: &Arc<Self>, limit: usize) -> Option<Working> {
        let mut under_way = lock(&self.under_way);
        (under_way.count < limit).then(|| {
            under_way.count += 1;
            Working(Arc::clone(self))
        })
    }

    /// Waits until nobody else loads or unloads the model. Blocking.
    pub(crate) fn alone(&self, model: &str) -> Alone<'_> {
        let under_way = lock(&self.under_way);
        let under_way = self.ended.wait_while(under_way, |under_way| under_way.models.contains(model));
        under_way.unwrap_or_else(PoisonError::into_inner).models.insert(model.to_owned());
        Alone { work: self, model: model.to_owned() }
    }

    /// Nothing new is to be begun, and what ends from now on ends where it is dropped.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits until nothing is under way. Blocking.
    pub(crate) fn wait(&self) {
        let under_way = lock(&self.under_way);
        // What is given by the wait is only the lock.
        drop(self.ended.wait_while(under_way, |under_way| under_way.count > 0));
    }

    /// Changes whenever something ends.
    pub(crate) fn ends(&self) -> watch::Receiver<()> {
        self.ends.subscribe()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        lock(&self.0.under_way).count -= 1;
        self.0.ended.notify_all();
        self.0.ends.send_replace(());
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        lock(&self.work.under_way).models.remove(&self.model);
        self.work.ended.notify_all();
    }
}

/// How a version ends.
pub(crate) struct Retirement {
    pub(crate) work: Arc<Work>,
    /// Told when its memory has been returned.
    pub(crate) ended: Box<dyn FnOnce() + Send + Sync>,
}

impl Retirement {
    /// Ends `scheduler` and the model's own `sandbox` on a thread of its own: whoever drops the last handle of a version
    /// may be a task that must not block. When the server stops there are no tasks any more, and nothing may be left
    /// behind.
    pub(crate) fn retire(
        self,
        name: &str,
        scheduler: Scheduler,
        kept: Option<Arc<KeptProfile>>,
        sandbox: Option<Sandbox>,
    ) {
        let Self { work, ended } = self;
        let is_closing = work.is_closing();
        let ending =
            Ending { scheduler: Some(scheduler), kept, sandbox, ended: Some(ended), _working: work.begin() };
        if !is_closing {
            // Without a thread it ends here, when the closure is dropped.
            let _ = thread::Builder::new().name(format!("retire-{name}")).spawn(move || drop(ending));
        }
    }
}

/// Ends a scheduler when it is dropped, and lets go of a sandbox, whose last handle joins its threads.
struct Ending {
    scheduler: Option<Scheduler>,
    kept: Option<Arc<KeptProfile>>,
    sandbox: Option<Sandbox>,
    ended: Option<Box<dyn FnOnce() + Send + Sync>>,
    _working: Working,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.stop();
            if let Some(kept) = self.kept.take() {
                kept.take_over(&scheduler.profiles());
            }
        }
        drop(self.sandbox.take());
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}
