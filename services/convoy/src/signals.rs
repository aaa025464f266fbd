//! SIGTERM and SIGINT, the two ways to ask a process to stop.

use std::io;
use tokio::signal::unix::{self, SignalKind};

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// From an orchestrator or `kill`.
    Term,
    /// Ctrl-C.
    Int,
}

impl Signal {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
        }
    }

    /// The exit code of a process that it ended, as shells count: 128 and the signal's number.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Term => 143,
            Self::Int => 130,
        }
    }
}

/// Receives the signals from when it is made on; until then they end the process.
#[derive(Debug)]
pub struct Signals {
    term: unix::Signal,
    int: unix::Signal,
}

impl Signals {
    /// Takes both signals over.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self { term: unix::signal(SignalKind::terminate())?, int: unix::signal(SignalKind::interrupt())? })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Term,
            _ = self.int.recv() => Signal::Int,
        }
    }
}
