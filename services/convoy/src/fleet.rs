//! Services that run in this process, and stopping them in order.

use crate::ready_file::Addresses;
use futures_util::future::select_all;
use service_kit::{Readiness, Shutdown};
use std::error::Error;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

/// How a service ends.
type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// One service that runs as a task of this process.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    readiness: Readiness,
    shutdown: Shutdown,
    /// `None` once its end was seen.
    task: Option<JoinHandle<Ended>>,
}

impl Service {
    /// Starts the service that `run` makes from its readiness and its stop signal.
    pub fn start<F, E>(name: &'static str, run: impl FnOnce(Readiness, Shutdown) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        // A new latch is open. The service holds it from its first step on; until then, we do.
        let starting = readiness.hold("its start");
        let running = run(readiness.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            let mut running = pin!(running);
            let first = poll_once(running.as_mut()).await;
            drop(starting);
            match first {
                Poll::Ready(result) => result,
                Poll::Pending => running.await,
            }
            .map_err(Into::into)
        });
        Self { name, readiness, shutdown, task: Some(task) }
    }

    /// Ends when the service does, and then never again.
    async fn ended(&mut self) -> (&'static str, Result<(), String>) {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let result = task.await;
        self.task = None;
        (self.name, sentence(result))
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

fn sentence(result: Result<Ended, JoinError>) -> Result<(), String> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("It stopped by a fault of ours: {error}.")),
    }
}

/// The services of one process, with the addresses they listen on.
#[derive(Debug)]
pub struct Fleet {
    addresses: Addresses,
    /// In the order in which they stop: a service comes before those that it calls.
    services: Vec<Service>,
}

/// A service that ended though nobody had asked it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service} stopped by itself. {reason}")]
pub struct EndedByItself {
    /// Its name.
    pub service: &'static str,
    /// Its error as a sentence.
    pub reason: String,
}

/// What went wrong while stopping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The grace period ran out.
    #[error("The grace period ran out while {hung} was stopping: its open requests were cut off{}.", rest(.behind))]
    GraceRanOut {
        /// The service that did not end.
        hung: &'static str,
        /// Those that were to stop after it, and were cut off too.
        behind: Vec<&'static str>,
    },
    /// Services that stopped with errors, in sentences.
    #[error("{0}")]
    Failed(String),
}

fn rest(behind: &[&str]) -> String {
    if behind.is_empty() { String::new() } else { format!(", and with them {}", behind.join(" and ")) }
}

impl Fleet {
    /// `services` in the order in which they are to stop: callers before those they call.
    pub fn new(addresses: Addresses, services: Vec<Service>) -> Self {
        Self { addresses, services }
    }

    /// Where the services listen.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns once every service was ready.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let services: Vec<_> = self.services.iter().map(|s| (s.name, s.readiness.clone())).collect();
        async move {
            for (service, readiness) in services {
                readiness.wait_ready().await;
                debug!(service, "service is ready");
            }
        }
    }

    /// Whether calls may have come to one of them, though not all are ready.
    pub fn has_opened(&self) -> bool {
        self.services.iter().any(|service| service.readiness.has_opened())
    }

    /// What is being waited for, each with the service's name.
    pub fn waiting_for(&self) -> Vec<String> {
        let holds = self.services.iter().flat_map(|service| {
            let waiting = service.readiness.waiting_for().into_iter();
            waiting.map(|what| format!("{}: {what}", service.name))
        });
        holds.collect()
    }

    /// Returns when a service ends that was not told to.
    pub async fn ended_by_itself(&mut self) -> EndedByItself {
        let ends = self.services.iter_mut().map(|service| Box::pin(service.ended()));
        let ((service, result), _, _) = select_all(ends).await;
        let reason = result.err().unwrap_or_else(|| "It gave no reason.".to_owned());
        EndedByItself { service, reason }
    }

    /// Makes every service unready, keeps serving for `delay`, then stops one service after the other, each to its
    /// end. All of it takes no longer than `grace`.
    ///
    /// # Errors
    /// When the time ran out (the services that still run are cut off) or a service stopped with an error.
    pub async fn stop(mut self, delay: Duration, grace: Duration) -> Result<(), StopError> {
        let deadline = Instant::now() + grace;
        for service in &self.services {
            service.shutdown.drain();
        }
        if !delay.is_zero() {
            info!(delay_ms = delay.as_millis(), "draining: unready, still serving");
            let _ = timeout_at(deadline, tokio::time::sleep(delay)).await;
        }
        let mut failed = Vec::new();
        for index in 0..self.services.len() {
            let service = &mut self.services[index];
            service.shutdown.stop();
            if service.task.is_none() {
                continue;
            }
            match timeout_at(deadline, service.ended()).await {
                Ok((name, Ok(()))) => info!(service = name, "service stopped"),
                Ok((name, Err(reason))) => {
                    error!(service = name, reason, "service stopped with an error");
                    failed.push(format!("{name} stopped with an error. {reason}"));
                }
                Err(_) => return Err(self.cut_off(index)),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(StopError::Failed(failed.join(" "))) }
    }

    /// Ends what still runs from service `hung` on.
    fn cut_off(&self, hung: usize) -> StopError {
        let mut behind = Vec::new();
        for service in &self.services[hung..] {
            service.shutdown.stop();
            if let Some(task) = &service.task {
                task.abort();
                behind.push(service.name);
            }
        }
        let hung = behind.remove(0);
        StopError::GraceRanOut { hung, behind }
    }
}

#[cfg(test)]
mod tests;
