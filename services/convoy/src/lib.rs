//! The one binary: all three services, and the command line tools.
//!
//! | module | what it holds |
//! |---|---|
//! | [`allocator`] | what glibc's allocator is told |
//! | [`cli`] | the subcommands and how a command line is read |
//! | [`options`] | flags that several subcommands share |
//! | [`up`], [`single`] | starting all three services, or one, from their configuration |
//! | [`fleet`] | services that run in this process, and stopping them in order |
//! | [`supervise`] | from start to exit: readiness, the ready file, signals, the grace period |
//! | [`signals`] | SIGTERM and SIGINT |
//! | [`ready_file`] | `--ready-file` |
//! | [`detect`] | `convoy detect` |
//! | [`mod@bench`] | `convoy bench` and `convoy device-check` |
//! | [`health`] | `convoy health` |
//! | [`keep`] | `convoy backup` and `convoy restore` |
//! | [`exit`] | exit codes |

pub mod allocator;
pub mod bench;
pub mod cli;
pub mod detect;
pub mod exit;
pub mod fleet;
pub mod health;
pub mod keep;
pub mod options;
pub mod ready_file;
pub mod signals;
pub mod single;
pub mod supervise;
pub mod up;

use cli::{Cli, Command};
use exit::Failure;
use std::ffi::OsString;

/// Runs the command line `arguments` (the program's name first) to its end.
///
/// # Errors
/// What went wrong as a sentence, with the exit code that belongs to it.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let Some(cli) = Cli::read(arguments)? else { return Ok(()) };
    match cli.command {
        Command::Up(args) => supervise::run(*args),
        Command::ModelServing(args) => supervise::run(*args),
        Command::FeatureService(args) => supervise::run(*args),
        Command::ResultsService(args) => supervise::run(*args),
        Command::Detect(args) => block_on(detect::run(args)),
        Command::Health(args) => block_on(health::run(args)),
        Command::Backup(args) => keep::run_backup(&args),
        Command::Restore(args) => keep::run_restore(args),
        Command::Bench(args) => block_on(bench::run(*args)),
        Command::DeviceCheck(args) => block_on(bench::run_device_check(args)),
    }
}

/// Runs a command that is a client: one thread waits for the network, and nothing has to be stopped.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::CannotStart(format!("The process could not start its threads: {error}."))
    })?;
    runtime.block_on(command)
}
