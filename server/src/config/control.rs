//! Which models are served, and who decides it.

use super::ConfigError;
use crate::repository::{ModelControlMode, RepositoryConfig};

/// Settings of the models' control.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "model-control")]
pub struct ModelControl {
    /// none: every model of the repository is loaded at start, and that is all. explicit: at start those that
    /// --load-model names are loaded; clients load and unload others, and these, while the server runs.
    #[arg(long, env = "MODEL_CONTROL_MODE", value_name = "none|explicit", value_enum, hide_possible_values = true,
          default_value_t = ModelControlMode::None)]
    pub model_control_mode: ModelControlMode,

    /// A model to load at start, with --model-control-mode explicit; given several times (in the variable: separated
    /// by commas), several. * alone: all. Default: none.
    #[arg(long = "load-model", env = "LOAD_MODEL", value_name = "NAME|*", value_delimiter = ',')]
    pub load_models: Vec<String>,

    /// true: ready only when every model chosen at start is. false: ready when the server is up.
    #[arg(long, env = "STRICT_READINESS", value_name = "true|false", hide_possible_values = true,
          action = clap::ArgAction::Set, default_value_t = true)]
    pub strict_readiness: bool,
}

impl ModelControl {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_all = |name: &String| name == RepositoryConfig::ALL_MODELS;
        let refuse = |detail| Err(ConfigError::LoadModel(detail));
        if self.model_control_mode == ModelControlMode::None && !self.load_models.is_empty() {
            return refuse(
                "every model is loaded anyway: leave it out, or set --model-control-mode explicit",
            );
        }
        if self.load_models.iter().any(String::is_empty) {
            return refuse("a name in it is empty: give the name of a model, or *");
        }
        if self.load_models.len() > 1 && self.load_models.iter().any(is_all) {
            return refuse("* stands for all models: give it alone");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        control: ModelControl,
    }

    fn parse(arguments: &[&str]) -> ModelControl {
        Cli::try_parse_from(["test"].iter().chain(arguments)).unwrap().control
    }

    #[test]
    fn models_to_load_are_named_or_all_in_explicit_mode_only() {
        let default = parse(&[]);
        assert_eq!(default.validate(), Ok(()));
        assert!(default.strict_readiness && default.load_models.is_empty());
        let explicit = "--model-control-mode=explicit";
        let several = parse(&[explicit, "--load-model=a,b", "--load-model", "c", "--strict-readiness=false"]);
        assert_eq!((several.validate(), several.strict_readiness), (Ok(()), false));
        assert_eq!(several.load_models, ["a", "b", "c"]);
        assert_eq!(parse(&[explicit, "--load-model=*"]).validate(), Ok(()));
        for wrong in
            [&["--load-model=a"][..], &[explicit, "--load-model=*,a"], &[explicit, "--load-model=a,"]]
        {
            let error = parse(wrong).validate().unwrap_err().to_string();
            assert!(error.contains("--load-model") && error.ends_with('.'), "{error}");
        }
        assert!(Cli::try_parse_from(["test", "--model-control-mode=poll"]).is_err());
    }
}
