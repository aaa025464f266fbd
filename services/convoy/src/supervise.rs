//! From start to exit of a process with services: readiness, the ready file, signals, the grace period.

use crate::exit::Failure;
use crate::fleet::{EndedByItself, Fleet};
use crate::options::ProcessArgs;
use crate::ready_file;
use crate::signals::{Signal, Signals};
use std::time::Duration;
use tracing::{info, warn};

/// A subcommand that runs services.
pub trait Program {
    /// How the process logs and stops.
    fn process(&self) -> &ProcessArgs;

    /// Checks what can be known before a port is bound.
    ///
    /// # Errors
    /// [`Failure::Usage`] for the first setting that cannot work.
    fn validate(&self) -> Result<(), Failure>;

    /// Binds the addresses and starts the services; it does not wait until they are ready.
    ///
    /// # Errors
    /// When an address cannot be bound, or what the services share cannot be had.
    fn start(self) -> impl Future<Output = Result<Fleet, Failure>> + Send;
}

/// Runs `program` until a signal ends it or one of its services fails.
///
/// # Errors
/// Why it could not start, or what failed. A second signal ends the process here.
pub fn run(program: impl Program) -> Result<(), Failure> {
    program.process().validate()?;
    program.validate()?;
    program.process().start_logging()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::CannotStart(format!("The process could not start its threads: {error}."))
    })?;
    let result = runtime.block_on(serve(program));
    // What was to end has ended; what hangs was named, and must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(program: impl Program) -> Result<(), Failure> {
    let process = program.process().clone();
    let mut signals = Signals::install()
        .map_err(|error| Failure::CannotStart(format!("The signals could not be taken over: {error}.")))?;
    process.remove_ready_file()?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let mut fleet = tokio::select! {
        started = program.start() => started?,
        signal = signals.next() => {
            info!(signal = signal.name(), "stopped before anything was started");
            return Ok(());
        }
    };
    for (face, address) in fleet.addresses().iter() {
        info!(face, %address, "listening");
    }
    let (end, was_ready) = until_the_end(&mut fleet, &process, &mut signals).await;
    // A file that stays says that the process is ready: better none at all than a wrong one.
    let removed = process.remove_ready_file();
    let delay = delay(&process, was_ready, &fleet);
    let stopped = stop(fleet, &end, delay, process.shutdown_grace, signals).await;
    end.result(was_ready).and(stopped).and(removed)
}

/// Why the services are stopped.
enum End {
    Asked(Signal),
    Service(EndedByItself),
    Own(Failure),
}

impl End {
    fn result(self, was_ready: bool) -> Result<(), Failure> {
        match self {
            Self::Asked(_) => Ok(()),
            Self::Service(ended) if was_ready => Err(Failure::Failed(ended.to_string())),
            Self::Service(ended) => Err(Failure::CannotStart(ended.reason)),
            Self::Own(failure) => Err(failure),
        }
    }
}

/// How long callers have to notice that the process stops. While nothing was open for calls there is nobody to turn away.
fn delay(process: &ProcessArgs, was_ready: bool, fleet: &Fleet) -> Duration {
    if was_ready || fleet.has_opened() { process.shutdown_delay } else { Duration::ZERO }
}

async fn until_the_end(fleet: &mut Fleet, process: &ProcessArgs, signals: &mut Signals) -> (End, bool) {
    let mut was_ready = false;
    let mut ready = std::pin::pin!(fleet.ready());
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => return (End::Asked(signal), was_ready),
            ended = fleet.ended_by_itself() => return (End::Service(ended), was_ready),
            () = &mut ready, if !was_ready => {
                was_ready = true;
                if let Err(failure) = process.write_ready_file(fleet.addresses()) {
                    return (End::Own(failure), was_ready);
                }
                info!("ready");
            }
        }
    }
}

async fn stop(
    fleet: Fleet,
    end: &End,
    delay: Duration,
    grace: Duration,
    mut signals: Signals,
) -> Result<(), Failure> {
    let delay = match end {
        End::Asked(signal) => {
            info!(signal = signal.name(), waiting_for = ?fleet.waiting_for(), "stopping");
            delay
        }
        // Requests fail already: the sooner the process ends, the sooner it is started again.
        End::Service(ended) => {
            // Why is said once, when the process ends.
            warn!(service = ended.service, "a service ended by itself: stopping the others");
            Duration::ZERO
        }
        End::Own(_) => Duration::ZERO,
    };
    tokio::select! {
        stopped = fleet.stop(delay, grace) => {
            stopped.map_err(|error| Failure::Failed(error.to_string()))
        }
        again = signals.next() => {
            warn!(signal = again.name(), "second signal: ending at once");
            std::process::exit(again.exit_code());
        }
    }
}

impl ProcessArgs {
    fn write_ready_file(&self, addresses: &ready_file::Addresses) -> Result<(), Failure> {
        let Some(path) = &self.ready_file else { return Ok(()) };
        ready_file::write(path, addresses).map_err(|error| {
            Failure::CannotStart(format!("The ready file {} cannot be written: {error}.", path.display()))
        })
    }

    fn remove_ready_file(&self) -> Result<(), Failure> {
        let Some(path) = &self.ready_file else { return Ok(()) };
        ready_file::remove(path).map_err(|error| {
            Failure::CannotStart(format!("The ready file {} cannot be removed: {error}.", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fleet::Service;
    use crate::ready_file::Addresses;
    use clap::Parser as _;
    use std::convert::Infallible;

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        process: ProcessArgs,
    }

    /// A model-serving with a broken model is never ready, and answers calls for the others.
    #[tokio::test]
    async fn who_was_open_for_calls_waits_for_them_though_it_never_was_ready() {
        let Args { process } = Args::try_parse_from(["test", "--shutdown-delay", "7s"]).unwrap();
        let (open, mut may_open) = (std::sync::Arc::new(tokio::sync::Notify::new()), None);
        let service = Service::start("models", |readiness, shutdown| {
            let hold = readiness.hold("model broken");
            may_open = Some(readiness.clone());
            let open = open.clone();
            async move {
                open.notified().await;
                readiness.opened();
                shutdown.stopping().await;
                drop(hold);
                Ok::<(), Infallible>(())
            }
        });
        let readiness = may_open.unwrap();
        let fleet = Fleet::new(Addresses::default(), vec![service]);
        assert_eq!(delay(&process, false, &fleet), Duration::ZERO, "nobody can have called");
        open.notify_one();
        while !readiness.has_opened() {
            tokio::task::yield_now().await;
        }
        assert!(!readiness.is_ready());
        assert_eq!(delay(&process, false, &fleet), Duration::from_secs(7));
        fleet.stop(Duration::ZERO, Duration::from_secs(60)).await.unwrap();
    }
}
