//! What others do, written from their published descriptions. None of these figures is that of a product: the
//! models leave out whatever is not the policy, and each is given what favours it.

use std::collections::VecDeque;
use std::time::Duration;

use super::MAX_BATCH;
use super::device::Device;
use super::engine::{Next, Policy, Request};

/// What another server does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Triton's dynamic batcher with a fixed delay: waits until the batch is full or its oldest request has waited so
    /// long. It is given the batch size that is best for the objective.
    FixedDelay(Duration),
    /// Clipper (Crankshaw et al., NSDI 2017, section 4.3): runs what is queued, up to a batch size that grows by one
    /// while batches of that size stay within the target, and shrinks by a tenth when one does not. The target is
    /// this share of the objective.
    Aimd(f64),
    /// BentoML's dispatcher (`CorkDispatcher`): fits `a n + b` to the last 50 batches, gives up the oldest while
    /// `waited + a n + b` is over the objective, waits while that is expected to pay, and runs the newest first. Its
    /// polling once a millisecond is left out, and its fit begins as good as it can be.
    LinearFit,
    /// Nexus (Shen et al., SOSP 2019, section 6.3): slides a window of the best batch size over the queue to the
    /// first request that is in time with the whole window, and gives up those before it. It knows the device.
    EarlyDrop,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::FixedDelay(Duration::ZERO),
        Self::FixedDelay(Duration::from_millis(1)),
        Self::FixedDelay(Duration::from_millis(5)),
        Self::Aimd(1.0),
        Self::LinearFit,
        Self::EarlyDrop,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FixedDelay(Duration::ZERO) => "fixed delay 0 ms",
            Self::FixedDelay(delay) if delay == Duration::from_millis(1) => "fixed delay 1 ms",
            Self::FixedDelay(_) => "fixed delay 5 ms",
            Self::Aimd(_) => "AIMD",
            Self::LinearFit => "linear fit",
            Self::EarlyDrop => "early drop",
        }
    }
}

/// A baseline and what an operator may set on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    /// Requests that may wait; more are refused.
    pub(crate) queue: Option<usize>,
    /// Requests whose deadline has passed are given up instead of run.
    pub(crate) drop_expired: bool,
}

impl Setting {
    /// As it comes.
    pub(crate) fn plain(kind: Kind) -> Self {
        Self { kind, queue: None, drop_expired: false }
    }

    /// Everything that is tried to find the best.
    pub(crate) fn sweep(kind: Kind) -> Vec<Self> {
        let lengths = [1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 384, 640];
        let queues: Vec<Option<usize>> = lengths.into_iter().map(Some).chain([None]).collect();
        let kinds = match kind {
            Kind::Aimd(_) => vec![Kind::Aimd(1.0), Kind::Aimd(0.5)],
            other => vec![other],
        };
        let settings = |kind| {
            let queues = queues.clone().into_iter();
            queues.flat_map(move |queue| [false, true].map(|drop_expired| Self { kind, queue, drop_expired }))
        };
        kinds.into_iter().flat_map(settings).collect()
    }
}

/// A running baseline.
pub(crate) struct Baseline {
    setting: Setting,
    device: Device,
    objective: Duration,
    /// Largest batch.
    batch: usize,
    queue: VecDeque<Request>,
    fit: LinearFit,
}

impl Baseline {
    pub(crate) fn new(setting: Setting, device: Device, objective: Duration) -> Self {
        let batch = match setting.kind {
            Kind::FixedDelay(_) | Kind::EarlyDrop => device.best_batch(objective),
            Kind::Aimd(_) => 1,
            Kind::LinearFit => MAX_BATCH,
        };
        let fit = LinearFit::new(device);
        Self { setting, device, objective, batch, queue: VecDeque::new(), fit }
    }

    fn pop(&mut self, count: usize) -> Vec<Request> {
        self.queue.drain(..count.min(self.queue.len())).collect()
    }

    fn linear_fit(&mut self, now: Duration, next: &mut Next) {
        let objective = self.objective.as_secs_f64();
        while let (Some(oldest), Some(newest)) = (self.queue.front(), self.queue.back()) {
            let waited = |request: &Request| (now - request.arrived).as_secs_f64();
            let count = self.queue.len() as f64;
            let LinearFit { a, b, wait, .. } = self.fit;
            if self.queue.len() > 1 && waited(oldest) + a * count + b >= objective {
                self.queue.pop_front();
                next.dropped += 1;
                continue;
            }
            let newest_has_waited = waited(newest);
            let until = 0.95 * wait / count - a - 1e-3;
            if self.queue.len() < self.batch && newest_has_waited <= until {
                let rest = Duration::from_secs_f64(until - newest_has_waited);
                next.wake_at = Some(now + rest + Duration::from_micros(1));
                return;
            }
            let count = self.queue.len().min(self.batch);
            self.fit.waited = waited(&self.queue[self.queue.len() - count]);
            next.batch = self.queue.split_off(self.queue.len() - count).into();
            return;
        }
    }
}

impl Policy for Baseline {
    fn arrive(&mut self, _: Duration, request: Request) -> bool {
        let full = self.setting.queue.is_some_and(|length| self.queue.len() >= length);
        if !full {
            self.queue.push_back(request);
        }
        !full
    }

    fn next(&mut self, now: Duration) -> Next {
        let mut next = Next::default();
        if self.setting.drop_expired {
            let before = self.queue.len();
            self.queue.retain(|request| request.deadline > now);
            next.dropped += before - self.queue.len();
        }
        let Some(oldest) = self.queue.front() else { return next };
        match self.setting.kind {
            Kind::FixedDelay(delay) if self.queue.len() < self.batch && now < oldest.arrived + delay => {
                next.wake_at = Some(oldest.arrived + delay);
            }
            Kind::FixedDelay(_) | Kind::Aimd(_) => next.batch = self.pop(self.batch),
            Kind::LinearFit => self.linear_fit(now, &mut next),
            Kind::EarlyDrop => {
                while let Some(head) = self.queue.front() {
                    if now + self.device.typical(self.queue.len().min(self.batch)) <= head.deadline {
                        break;
                    }
                    self.queue.pop_front();
                    next.dropped += 1;
                }
                next.batch = self.pop(self.batch);
            }
        }
        next
    }

    fn ended(&mut self, now: Duration, rows: usize, took: Duration) {
        match self.setting.kind {
            Kind::Aimd(share) if took > self.objective.mul_f64(share) => {
                self.batch = ((self.batch as f64 * 0.9) as usize).max(1);
            }
            Kind::Aimd(_) if rows >= self.batch => self.batch = (self.batch + 1).min(MAX_BATCH),
            Kind::LinearFit => self.fit.note(now, rows, took),
            _ => {}
        }
    }
}

/// BentoML's optimizer: a line through the last batches, found anew every five seconds.
struct LinearFit {
    /// Seconds for each row, and for each batch.
    a: f64,
    b: f64,
    /// How long the oldest request of a batch waits, in the mean, in seconds.
    wait: f64,
    /// How long that of the batch that runs has waited.
    waited: f64,
    kept: VecDeque<(f64, f64, f64)>,
    refreshed: Duration,
}

impl LinearFit {
    fn new(device: Device) -> Self {
        let seconds = |rows| device.typical(rows).as_secs_f64();
        let a = seconds(2) - seconds(1);
        let b = (seconds(1) - a).max(0.0);
        Self { a, b, wait: 0.01, waited: 0.0, kept: VecDeque::new(), refreshed: Duration::ZERO }
    }

    fn note(&mut self, now: Duration, rows: usize, took: Duration) {
        if self.kept.len() == 50 {
            self.kept.pop_front();
        }
        self.kept.push_back((rows as f64, took.as_secs_f64(), self.waited));
        // Its first refresh is when the training is done.
        if self.kept.len() >= 3 && now >= self.refreshed + Duration::from_secs(5) || self.kept.len() == 3 {
            self.refreshed = now;
            self.refresh();
        }
    }

    /// Least squares, and of all solutions the shortest where the sizes are all the same, as numpy's `lstsq` gives.
    fn refresh(&mut self) {
        let count = self.kept.len() as f64;
        let mean = |of: fn(&(f64, f64, f64)) -> f64| self.kept.iter().map(of).sum::<f64>() / count;
        let (rows, took) = (mean(|kept| kept.0), mean(|kept| kept.1));
        let variance = self.kept.iter().map(|kept| (kept.0 - rows).powi(2)).sum::<f64>();
        let (a, b) = if variance > 1e-9 {
            let a = self.kept.iter().map(|kept| (kept.0 - rows) * (kept.1 - took)).sum::<f64>() / variance;
            (a, took - a * rows)
        } else {
            let scale = took / (rows * rows + 1.0);
            (scale * rows, scale)
        };
        self.wait = mean(|kept| kept.2).max(0.0);
        (self.a, self.b) = (a.max(1e-6), b.max(0.0));
    }
}
