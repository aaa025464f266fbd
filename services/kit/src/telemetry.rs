//! Logs: one line per event, as text for a person or as JSON for a machine.

use std::io::IsTerminal as _;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person at a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, else JSON.
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Which events are logged: a level, or directives as in `info,model_serving=debug`.
#[derive(Clone, Debug)]
pub struct LogLevel(String);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let directives = text.trim();
        // EnvFilter takes any word as the name of a target: `inof` would silently log nothing.
        let plain = !directives.contains(['=', ',', '[']);
        let level =
            ["off", "error", "warn", "info", "debug", "trace"].contains(&directives.to_lowercase().as_str());
        if directives.is_empty() || (plain && !level) {
            return Err("expected off, error, warn, info, debug, trace, or directives such as \
                        `info,model_serving=debug`"
                .to_owned());
        }
        EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        Ok(Self(directives.to_lowercase()))
    }
}

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts logging to standard error, for the whole process: only `main` calls this.
///
/// # Errors
/// When a subscriber is installed already.
pub fn init(level: &LogLevel, format: LogFormat) -> Result<(), TryInitError> {
    // `LogLevel` was parsed by the same function; a text that it took cannot fail here.
    let filter = EnvFilter::new(completed(&level.0));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init(),
    }
}

/// The directives as they are meant:
///
/// * ONNX Runtime one or two levels lower than the rest, unless they name it: it reports every step of loading a model
///   as information, hundreds of lines for each.
/// * Audit lines at every level but `off`, unless they name them: they are a record, and not how the server fares.
fn completed(directives: &str) -> String {
    let ort = match directives {
        "info" => Some("ort=warn"),
        "debug" => Some("ort=info"),
        _ if directives.contains("ort=") || !directives.contains(',') => None,
        _ => Some("ort=warn"),
    };
    let audit = (directives != "off" && !directives.contains("audit=")).then_some("audit=info");
    let added = ort.into_iter().chain(audit);
    added.map(|directive| format!("{directive},")).collect::<String>() + directives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onnx_runtime_is_quiet_unless_asked_for_and_audit_lines_are_written_unless_switched_off() {
        for (asked, filter) in [
            ("info", "ort=warn,audit=info,info"),
            ("debug", "ort=info,audit=info,debug"),
            ("warn", "audit=info,warn"),
            ("error", "audit=info,error"),
            ("off", "off"),
            ("warn,audit=off", "ort=warn,warn,audit=off"),
            ("info,model_serving=debug", "ort=warn,audit=info,info,model_serving=debug"),
            ("info,ort=info", "audit=info,info,ort=info"),
        ] {
            assert_eq!(completed(asked), filter);
            EnvFilter::try_new(completed(asked)).expect("valid directives");
        }
    }

    #[test]
    fn the_audit_is_heard_where_warnings_are() {
        let heard = |level: &str| {
            let filter = EnvFilter::new(completed(level));
            let subscriber =
                tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::sink).finish();
            tracing::subscriber::with_default(subscriber, || {
                (
                    tracing::enabled!(target: "audit", tracing::Level::INFO),
                    tracing::enabled!(target: "convoy", tracing::Level::INFO),
                )
            })
        };
        assert_eq!(heard("warn"), (true, false));
        assert_eq!(heard("info"), (true, true));
        assert_eq!(heard("off"), (false, false));
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!("info".parse::<LogLevel>().is_ok());
        assert!("INFO".parse::<LogLevel>().is_ok());
        assert!("info,model_serving=debug".parse::<LogLevel>().is_ok());
        assert!("inof".parse::<LogLevel>().is_err());
        assert!("info,x=loud".parse::<LogLevel>().is_err());
        assert!("".parse::<LogLevel>().is_err());
    }
}
