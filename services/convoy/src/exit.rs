//! How the process ends: exit codes after BSD's `sysexits.h`, and one sentence on standard error.

use std::process::ExitCode;

/// What `--help` says about exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done, or stopped by a signal with every open request served
  1    failed: a photo, a health check, a service while it ran, or the grace period ran out
  64   wrong configuration; nothing was started
  69   could not start: an address is in use, a model cannot be loaded, --device cuda without CUDA
  130, 143   ended at once by a second SIGINT or SIGTERM";

/// Why the process ends with a code other than 0. The text is a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The command line or the environment is wrong: 64 (`EX_USAGE`).
    #[error("{0}")]
    Usage(String),
    /// Something that is needed to start is not to be had: 69 (`EX_UNAVAILABLE`).
    #[error("{0}")]
    CannotStart(String),
    /// What was asked for was begun and failed: 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::CannotStart(_) => 69,
            Self::Failed(_) => 1,
        }
    }

    /// Says why the process ends, in the log where one takes errors, else on standard error, and gives the code to
    /// `main`.
    #[allow(clippy::print_stderr, reason = "the last word of a command that has no log")]
    pub fn report(&self) -> ExitCode {
        if has_log() {
            tracing::error!(exit_code = self.code(), "{self}");
        } else {
            eprintln!("convoy: {self}");
        }
        ExitCode::from(self.code())
    }
}

/// Whether somebody reads what is logged as an error. That a log was set up says little: it may be off, and threads that
/// load models set up again what their caller had, if that was none.
fn has_log() -> bool {
    tracing::enabled!(tracing::Level::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::dispatcher::{Dispatch, has_been_set, with_default};
    use tracing_subscriber::filter::LevelFilter;

    #[test]
    fn a_log_that_takes_no_errors_is_none() {
        let log =
            |level: LevelFilter| Dispatch::new(tracing_subscriber::fmt().with_max_level(level).finish());
        assert!(with_default(&log(LevelFilter::INFO), has_log));
        assert!(!with_default(&log(LevelFilter::OFF), has_log), "--log-level off");
        assert!(!with_default(&Dispatch::none(), has_log));
        assert!(has_been_set() && !has_log(), "which was asked before");
    }
}
