//! SIGTERM and SIGINT, the two ways to ask a process to stop.

use std::io;
use std::time::{Duration, Instant};
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

/// Who sends the same signal to a process and then to its group, as `timeout` of the GNU coreutils does, means it once. No
/// human is that quick.
pub const ECHO: Duration = Duration::from_millis(100);

/// Receives the signals from when it is made on; until then they end the process.
#[derive(Debug)]
pub struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    last: Option<(Signal, Instant)>,
}

impl Signals {
    /// Takes both signals over.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        let (term, int) = (unix::signal(SignalKind::terminate())?, unix::signal(SignalKind::interrupt())?);
        Ok(Self { term, int, last: None })
    }

    /// The next signal. The same again within [`ECHO`] is none.
    pub async fn next(&mut self) -> Signal {
        loop {
            let signal = tokio::select! {
                _ = self.term.recv() => Signal::Term,
                _ = self.int.recv() => Signal::Int,
            };
            if self.is_meant(signal, Instant::now()) {
                return signal;
            }
        }
    }

    /// Whether a signal that came `now` is no echo of the last one.
    fn is_meant(&mut self, signal: Signal, now: Instant) -> bool {
        if self.last.is_some_and(|(last, at)| last == signal && now - at < ECHO) {
            return false;
        }
        self.last = Some((signal, now));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn the_same_signal_at_once_is_one() {
        let mut signals = Signals::install().unwrap();
        let now = Instant::now();
        let ms = Duration::from_millis;
        assert!(signals.is_meant(Signal::Term, now));
        assert!(!signals.is_meant(Signal::Term, now + ms(1)));
        assert!(
            !signals.is_meant(Signal::Term, now + ms(99)),
            "an echo of an echo is counted from the first"
        );
        assert!(signals.is_meant(Signal::Term, now + ms(100)));
        assert!(signals.is_meant(Signal::Int, now + ms(101)), "another signal is none");
    }
}
