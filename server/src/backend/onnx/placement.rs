//! Where the nodes of a graph run, as ONNX Runtime says while it opens a session.
//!
//! The C API has a call for it (`Session_GetEpGraphAssignmentInfo`), which `ort` does not offer; what it offers is the
//! session's log. There, in so many words, the placement stands once all nodes have their provider
//! (`VerifyEachNodeIsAssignedToAnEp` in ONNX Runtime's `session_state.cc`). A test holds the words against the library
//! that is set up; with a library that words them otherwise nothing is known, and that is said.

use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::{LogLevel, LoggerFunction};

use crate::backend::ProviderNodes;

/// Collects what a session's log says of its nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct PlacementLog(Arc<Mutex<Vec<ProviderNodes>>>);

impl PlacementLog {
    /// A logger that collects, and hands errors on to this process's log.
    pub(super) fn logger(&self) -> LoggerFunction {
        let log = self.clone();
        Arc::new(move |level, _category, _id, location, message| match level {
            LogLevel::Verbose => log.read(message),
            LogLevel::Info | LogLevel::Warning => {}
            LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "ort", location, "{message}"),
        })
    }

    /// What was collected.
    pub(super) fn nodes(&self) -> Vec<ProviderNodes> {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for of_provider in &mut nodes {
            of_provider.operators.sort_unstable();
            of_provider.operators.dedup();
        }
        nodes
    }

    fn read(&self, message: &str) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if message.trim() == "Node placements" {
            nodes.clear();
        } else if let Some((provider, count)) = header(message) {
            nodes.push(ProviderNodes { provider: provider.to_owned(), nodes: count, operators: Vec::new() });
        } else if let Some(operator) = node(message)
            && let Some(last) = nodes.last_mut()
            // Other lines may begin with blanks, too: a provider's own follow its header at once.
            && last.operators.len() < last.nodes
        {
            last.operators.push(operator.to_owned());
        }
    }
}

/// ` All nodes placed on [CPUExecutionProvider]. Number of nodes: 12`, or ` Node(s) placed on [` ….
fn header(message: &str) -> Option<(&str, usize)> {
    let rest = message.trim();
    let rest =
        rest.strip_prefix("All nodes placed on [").or_else(|| rest.strip_prefix("Node(s) placed on ["))?;
    let (provider, count) = rest.split_once("]. Number of nodes: ")?;
    Some((provider, count.trim().parse().ok()?))
}

/// `  Conv (its name)`.
fn node(message: &str) -> Option<&str> {
    let (operator, name) = message.strip_prefix("  ")?.split_once(" (")?;
    let is_word = operator.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    (is_word && name.trim_end().ends_with(')')).then_some(operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(provider: &str, nodes: usize, operators: &[&str]) -> ProviderNodes {
        let operators = operators.iter().map(|&operator| operator.to_owned()).collect();
        ProviderNodes { provider: provider.to_owned(), nodes, operators }
    }

    fn read(messages: &[&str]) -> Vec<ProviderNodes> {
        let log = PlacementLog::default();
        messages.iter().for_each(|message| log.read(message));
        log.nodes()
    }

    #[test]
    fn one_provider_has_all_nodes() {
        let messages =
            ["Node placements", " All nodes placed on [CPUExecutionProvider]. Number of nodes: 66"];
        assert_eq!(read(&messages), [nodes("CPUExecutionProvider", 66, &[])]);
    }

    #[test]
    fn several_share_them_and_tell_their_operators() {
        let messages = [
            "Adding default CPU execution provider.",
            "Node placements",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
            "  Shape (a)",
            "  Gather (b c)",
            "  Shape ()",
            " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 2",
            "  Conv (d)",
            "  Relu (e)",
            "  Conv (no longer a part of it)",
            "SaveMLValueNameIndexMapping",
        ];
        let expected = [
            nodes("CPUExecutionProvider", 3, &["Gather", "Shape"]),
            nodes("CUDAExecutionProvider", 2, &["Conv", "Relu"]),
        ];
        assert_eq!(read(&messages), expected);
    }

    #[test]
    fn other_words_say_nothing() {
        assert_eq!(read(&["", "Number of nodes: 3", "All nodes placed on [X]. Number of nodes: many"]), []);
        assert_eq!(read(&["  Conv (a)"]), []);
    }
}
