//! The command line: subcommands, and how arguments and environment become settings or one clear sentence.

use crate::bench::{BenchArgs, DeviceCheckArgs, OWN_ADDRESSES};
use crate::detect::DetectArgs;
use crate::exit::{EXIT_CODES, Failure};
use crate::health::HealthArgs;
use crate::keep::{BackupArgs, RestoreArgs};
use crate::single::{FeatureServiceArgs, ModelServingArgs, ResultsServiceArgs};
use crate::up::{DERIVED, UpArgs};
use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::OsString;

/// Convoy: object detection over gRPC and REST, with images decoded in a WASM sandbox.
#[derive(Parser, Clone, Debug)]
#[command(name = "convoy", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `convoy` can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run all three services in this process: what a single machine wants. Binds 127.0.0.1 unless told otherwise.
    #[command(after_help = EXIT_CODES)]
    Up(Box<UpArgs>),
    /// Run model-serving: inference over gRPC and REST, and its metrics.
    #[command(after_help = EXIT_CODES)]
    ModelServing(Box<ModelServingArgs>),
    /// Run feature-service: the REST edge; it calls model-serving and results-service.
    #[command(after_help = EXIT_CODES)]
    FeatureService(Box<FeatureServiceArgs>),
    /// Run results-service: predictions in SQLite over REST.
    #[command(after_help = EXIT_CODES)]
    ResultsService(Box<ResultsServiceArgs>),
    /// Send photos to a running Convoy and show what it finds in them.
    #[command(after_help = EXIT_CODES)]
    Detect(DetectArgs),
    /// Ask whether a service is ready, for containers and scripts: exit code 0 when it is, else 1.
    #[command(after_help = EXIT_CODES)]
    Health(HealthArgs),
    /// Copy the database of results-service to a file, also while it is in use.
    #[command(after_help = EXIT_CODES)]
    Backup(BackupArgs),
    /// Make the database of results-service from a backup, without anybody who was erased since.
    #[command(after_help = EXIT_CODES)]
    Restore(RestoreArgs),
    /// Measure model-serving beside ONNX Runtime without a server, in turn on this machine.
    #[command(after_help = EXIT_CODES)]
    Bench(Box<BenchArgs>),
    /// Say what the device is, whether it computes what the CPU does, how fast it is and how much of that is served.
    #[command(after_help = EXIT_CODES)]
    DeviceCheck(DeviceCheckArgs),
}

impl Cli {
    /// Reads a command line and the environment. `None`: help or the version was asked for, and shown.
    ///
    /// # Errors
    /// [`Failure::Usage`] with one sentence.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, Failure> {
        let command = command();
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let parsed = command.clone().try_get_matches_from(&arguments).and_then(|matches| {
            let cli = Self::from_arg_matches(&matches)?;
            Ok((matches, cli))
        });
        match parsed {
            Ok((matches, cli)) => refuse_derived(&matches).map(|()| Some(cli)),
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                // A reader that closed the pipe has seen what it wanted.
                let _ = error.print();
                Ok(None)
            }
            Err(error) => Err(Failure::Usage(sentence(&command, &arguments, &error))),
        }
    }
}

/// The commands with their flags. `up` has the flags of the single services with other defaults: it binds this
/// machine's own address, and finds its parts by itself.
pub fn command() -> clap::Command {
    let mut command = Cli::command().mut_subcommand("up", |up| {
        let up = up.mut_args(|arg| {
            let own = arg.get_default_values().first().and_then(|value| value.to_str());
            match own.and_then(|address| address.strip_prefix("0.0.0.0:")) {
                Some(port) => {
                    let address = format!("127.0.0.1:{port}");
                    arg.default_value(OsStr::from(address))
                }
                None => arg,
            }
        });
        DERIVED
            .iter()
            .fold(up, |up, (name, _)| up.mut_arg(name, |arg| arg.hide(true).env(Resettable::<OsStr>::Reset)))
    });
    command = command.mut_subcommand("bench", |bench| {
        OWN_ADDRESSES.iter().fold(bench, |bench, name| {
            bench.mut_arg(name, |arg| arg.hide(true).env(Resettable::<OsStr>::Reset))
        })
    });
    // Only a built command can say how its flags are written.
    command.build();
    command
}

fn refuse_derived(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(("up", up)) = matches.subcommand() else { return Ok(()) };
    for (name, service) in DERIVED {
        if up.value_source(name) == Some(ValueSource::CommandLine) {
            let flag = name.replace('_', "-");
            return Err(Failure::Usage(format!(
                "`convoy up` runs {service} itself: leave out --{flag}, or start the services one by one."
            )));
        }
    }
    Ok(())
}

/// clap's report of several paragraphs as one line, with the environment variable named where it was at fault.
fn sentence(command: &clap::Command, arguments: &[OsString], error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "Say what to do: `convoy up` starts everything, `convoy --help` lists the commands."
            .to_owned();
    }
    let report = error.render().to_string();
    let told = report.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let told = told.filter(|line| {
        // A guess at a flag that `up` refuses is no help.
        let refused =
            || DERIVED.iter().any(|(name, _)| line.contains(&format!("--{}", name.replace('_', "-"))));
        !(line.is_empty()
            || line.starts_with("For more information")
            || (line.starts_with("tip:") && refused()))
    });
    let mut text = told.collect::<Vec<_>>().join(" ").replace(" tip: ", ": ");
    if let Some(rest) = text.strip_prefix("error: ") {
        text = rest.to_owned();
    }
    let mut text = capitalised(text.trim_end_matches('.'));
    if let Some(variable) = variable_at_fault(command, arguments, error) {
        text.push_str(&format!(" (from the environment variable {variable})"));
    }
    let subcommand = arguments.get(1).and_then(|name| command.find_subcommand(name));
    let help = subcommand.map_or_else(String::new, |found| format!("{} ", found.get_name()));
    format!("{text}. `convoy {help}--help` explains every flag.")
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The variable whose value clap refused, if the value did not come from the command line.
fn variable_at_fault(command: &clap::Command, arguments: &[OsString], error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (arg, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let subcommand = command.find_subcommand(arguments.get(1)?)?;
    let variable = subcommand.get_arguments().find(|known| known.to_string() == arg)?.get_env()?.to_str()?;
    let flag = arg.split(' ').next()?;
    let given = arguments.iter().filter_map(|word| word.to_str());
    let on_command_line = given.into_iter().any(|word| word.split('=').next() == Some(flag));
    let in_environment = std::env::var(variable).is_ok_and(|set| set == value);
    (in_environment && !on_command_line).then(|| variable.to_owned())
}

#[cfg(test)]
mod tests;
