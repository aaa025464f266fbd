//! `config.pbtxt`: Triton's model configuration as text protobuf.

use std::path::Path;

use convoy_proto::inference::ModelConfig;
use convoy_proto::inference::model_config::SchedulingChoice;
use miette::Diagnostic as _;
use prost_reflect::text_format::ParseError;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::acceleration;
use crate::error::LoadError;

/// A configuration as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WrittenConfig {
    /// The message.
    pub(crate) config: ModelConfig,
    /// Whether `max_batch_size` is written, which for 0 the message does not tell.
    pub(crate) has_max_batch_size: bool,
}

/// Parses the text of the file at `path`.
///
/// # Errors
/// With the line, for what is no model configuration.
pub(crate) fn parse(path: &Path, text: &str) -> Result<WrittenConfig, LoadError> {
    let failed =
        |line: Option<usize>, detail: String| LoadError::Config { path: path.to_owned(), line, detail };
    let descriptor = descriptor().map_err(|detail| failed(None, detail))?;
    let text = &with_colons(text);
    let message = DynamicMessage::parse_text_format(descriptor.clone(), text)
        .map_err(|error| failed(line_of(&error, text), error.to_string()))?;
    let config = message.transcode_to::<ModelConfig>().map_err(|error| failed(None, error.to_string()))?;
    // A field that is set twice is an error: so it is written if it cannot be set before it.
    let has_max_batch_size =
        DynamicMessage::parse_text_format(descriptor, &format!("max_batch_size: 1 {text}")).is_err();
    refuse_unsupported(&config).map_err(|detail| failed(None, detail))?;
    warn_of_unused(&path.display().to_string(), &config);
    Ok(WrittenConfig { config, has_max_batch_size })
}

/// Reads a configuration written as JSON, as a client gives it with a load.
///
/// # Errors
/// For what is no model configuration, in words for the middle of a sentence.
pub(crate) fn parse_json(text: &str) -> Result<WrittenConfig, String> {
    // Protobuf's JSON allows both spellings of a name.
    const MAX_BATCH_SIZE: [&str; 2] = ["max_batch_size", "maxBatchSize"];
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let has_max_batch_size = MAX_BATCH_SIZE.iter().any(|name| value.get(name).is_some());
    let message = DynamicMessage::deserialize(descriptor()?, value).map_err(|error| error.to_string())?;
    let config = message.transcode_to::<ModelConfig>().map_err(|error| error.to_string())?;
    refuse_unsupported(&config)?;
    warn_of_unused("the parameter `config` of a load", &config);
    Ok(WrittenConfig { config, has_max_batch_size })
}

/// Writes the colon of `input: [ … ]` where it was left out. Text protobuf allows that for lists of messages, and
/// nearly every configuration for Triton does it, but the parser used here insists. Lines stay what they are.
fn with_colons(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 16);
    // The last character that means something.
    let mut last = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '#' => {
                written.push('#');
                written.extend(characters.by_ref().take_while(|&other| other != '\n'));
                // `take_while` took the end of the line, too; at the end of the text there was none.
                written.push('\n');
                continue;
            }
            '[' if last.is_some_and(|last: char| last.is_alphanumeric() || last == '_') => written.push(':'),
            _ => {}
        }
        written.push(character);
        if character == '"' || character == '\'' {
            while let Some(inside) = characters.next() {
                written.push(inside);
                match inside {
                    '\\' => written.extend(characters.next()),
                    _ if inside == character => break,
                    _ => {}
                }
            }
        }
        if !character.is_whitespace() {
            last = Some(character);
        }
    }
    written
}

fn descriptor() -> Result<MessageDescriptor, String> {
    let pool =
        DescriptorPool::decode(convoy_proto::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
    pool.get_message_by_name("inference.ModelConfig")
        .ok_or_else(|| "inference.ModelConfig is missing".to_owned())
}

fn line_of(error: &ParseError, text: &str) -> Option<usize> {
    let offset = match error.labels() {
        Some(mut labels) => labels.next()?.offset(),
        // Only the end of the input has no place in it.
        None => text.len(),
    };
    Some(text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1)
}

/// What would change the answers and is not there to be had.
fn refuse_unsupported(config: &ModelConfig) -> Result<(), String> {
    let tensors = || {
        let inputs = config.input.iter().map(|i| (&i.name, i.reshape.is_some(), i.is_shape_tensor));
        inputs.chain(config.output.iter().map(|o| (&o.name, o.reshape.is_some(), o.is_shape_tensor)))
    };
    let unsupported = |what: &str| Err(format!("{what} is not supported"));
    if !matches!(config.platform.as_str(), "" | "onnxruntime_onnx") {
        return Err(format!("platform `{}` is not supported: use onnxruntime_onnx", config.platform));
    }
    if !matches!(config.backend.as_str(), "" | "onnxruntime") {
        return Err(format!("backend `{}` is not supported: use onnxruntime", config.backend));
    }
    match config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(_)) => return unsupported("sequence_batching"),
        Some(SchedulingChoice::EnsembleScheduling(_)) => return unsupported("ensemble_scheduling"),
        Some(SchedulingChoice::DynamicBatching(_)) | None => {}
    }
    if config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled) {
        return unsupported("model_transaction_policy with decoupled responses");
    }
    if config.model_operations.as_ref().is_some_and(|operations| !operations.op_library_filename.is_empty()) {
        return unsupported("model_operations with libraries of operators");
    }
    if !config.batch_input.is_empty() || !config.batch_output.is_empty() {
        return unsupported("batch_input and batch_output");
    }
    if let Some((name, ..)) = tensors().find(|&(_, reshape, _)| reshape) {
        return Err(format!(
            "reshape of `{name}` is not supported: give its dims as the model file has them"
        ));
    }
    if let Some((name, ..)) = tensors().find(|&(.., shape_tensor)| shape_tensor) {
        return Err(format!("is_shape_tensor of `{name}` is not supported"));
    }
    for input in &config.input {
        if input.allow_ragged_batch {
            return Err(format!("allow_ragged_batch of `{}` is not supported", input.name));
        }
        if input.optional {
            return Err(format!(
                "optional of input `{}` is not supported: every input must be sent, so take it out",
                input.name
            ));
        }
    }
    Ok(())
}

/// Says what is understood but has no effect.
fn warn_of_unused(from: &str, config: &ModelConfig) {
    let fields = unused(config);
    if !fields.is_empty() {
        let fields = fields.join(", ");
        tracing::warn!(from, fields, "The model's configuration sets what has no effect here");
    }
}

/// What changes no answer, and not how soon it comes either, since nothing of it is here.
fn unused(config: &ModelConfig) -> Vec<&'static str> {
    let mut unused = config.optimization.as_ref().map(acceleration::unused).unwrap_or_default();
    let groups = &config.instance_group;
    let fields = [
        ("model_warmup", !config.model_warmup.is_empty()),
        ("response_cache", config.response_cache.is_some()),
        ("model_metrics", config.model_metrics.is_some()),
        ("model_repository_agents", config.model_repository_agents.is_some()),
        ("cc_model_filenames", !config.cc_model_filenames.is_empty()),
        ("metric_tags", !config.metric_tags.is_empty()),
        ("runtime", !config.runtime.is_empty()),
        ("is_non_linear_format_io", config.input.iter().any(|input| input.is_non_linear_format_io)),
        ("is_non_linear_format_io", config.output.iter().any(|output| output.is_non_linear_format_io)),
        ("instance_group.rate_limiter", groups.iter().any(|group| group.rate_limiter.is_some())),
        ("instance_group.profile", groups.iter().any(|group| !group.profile.is_empty())),
        ("instance_group.host_policy", groups.iter().any(|group| !group.host_policy.is_empty())),
    ];
    unused.extend(fields.into_iter().filter(|field| field.1).map(|field| field.0));
    unused.dedup();
    unused
}

#[cfg(test)]
mod tests;
