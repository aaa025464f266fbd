//! The parameters of a request or of one of its outputs, whichever protocol they came in.

use std::time::Duration;

use crate::error::ServingError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
}

/// Parameters by their names, which are distinct.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parameters(Vec<(String, Parameter)>);

/// What the server acts upon, and so does not echo. So it is with every name that begins with `triton_`.
const RESERVED: [&str; 7] =
    ["timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output", "user_id"];

impl FromIterator<(String, Parameter)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Parameter)>>(parameters: I) -> Self {
        Self(parameters.into_iter().collect())
    }
}

impl IntoIterator for Parameters {
    type Item = (String, Parameter);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Parameters {
    pub(crate) fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// Sets a parameter, whether it is there or not.
    pub(crate) fn set(&mut self, name: &str, value: Parameter) {
        self.0.retain(|(given, _)| given != name);
        self.0.push((name.to_owned(), value));
    }

    /// Those of a request that its answer has too.
    pub(crate) fn echoed(mut self) -> Self {
        self.0.retain(|(name, _)| !RESERVED.contains(&name.as_str()) && !name.starts_with("triton_"));
        self
    }

    /// The text of parameter `name`; empty when it is absent.
    ///
    /// # Errors
    /// `InvalidInput` when it is no text; so below for other types.
    pub(crate) fn text(&self, name: &str) -> Result<&str, ServingError> {
        match self.get(name) {
            None => Ok(""),
            Some(Parameter::Text(text)) => Ok(text),
            Some(_) => Err(wrong(name, "is not a text", "send it as string_param, or a JSON string")),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ServingError> {
        match self.get(name) {
            None => Ok(None),
            Some(Parameter::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(wrong(name, "is not true or false", "send it as bool_param, or a JSON boolean")),
        }
    }

    fn natural(&self, name: &str, what: &str) -> Result<Option<u64>, ServingError> {
        let natural = match self.get(name) {
            None => return Ok(None),
            Some(Parameter::Int(value)) => u64::try_from(*value).ok(),
            Some(Parameter::Uint(value)) => Some(*value),
            Some(_) => None,
        };
        natural
            .map(Some)
            .ok_or_else(|| wrong(name, what, "send it as int64_param, or a whole JSON number, 0 or more"))
    }

    /// The parameter `timeout`, in microseconds as Triton has it; 0 is none.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ServingError> {
        let microseconds = self.natural("timeout", "is no number of microseconds")?;
        Ok(microseconds.filter(|&value| value > 0).map(Duration::from_micros))
    }

    /// The parameter `priority`: 1 is the most urgent, 0 the model's default.
    pub(crate) fn priority(&self) -> Result<u32, ServingError> {
        let priority = self.natural("priority", "is no priority")?.unwrap_or(0);
        u32::try_from(priority)
            .map_err(|_| wrong("priority", "is larger than any priority", "send a smaller one"))
    }

    /// The parameter `classification` of an output: how many classes of each row; 0 and absent are all the same.
    pub(crate) fn classification(&self) -> Result<Option<usize>, ServingError> {
        let classes = self.natural("classification", "is no number of classes")?;
        Ok(classes
            .filter(|&classes| classes > 0)
            .map(|classes| usize::try_from(classes).unwrap_or(usize::MAX)))
    }

    /// Refuses what asks for the state of a sequence, which no model here has. Some clients always send the
    /// parameters, with values that mean "no sequence".
    pub(crate) fn refuse_sequences(&self) -> Result<(), ServingError> {
        let asks = |name: &str| match self.get(name) {
            None | Some(Parameter::Bool(false) | Parameter::Int(0) | Parameter::Uint(0)) => false,
            Some(Parameter::Text(text)) => !text.is_empty(),
            Some(_) => true,
        };
        match ["sequence_id", "sequence_start", "sequence_end"].into_iter().find(|name| asks(name)) {
            None => Ok(()),
            Some(name) => Err(ServingError::InvalidInput(format!(
                "The request has the parameter `{name}`, but sequences are not supported, and no model of this \
                 server keeps a state between requests: leave it out."
            ))),
        }
    }
}

fn wrong(name: &str, what: &str, cure: &str) -> ServingError {
    ServingError::InvalidInput(format!("The parameter `{name}` {what}: {cure}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: Parameter) -> Parameters {
        [(name.to_owned(), value)].into_iter().collect()
    }

    #[test]
    fn the_timeout_counts_microseconds() {
        let timeout = |value| with("timeout", value).timeout();
        assert_eq!(timeout(Parameter::Int(1500)), Ok(Some(Duration::from_micros(1500))));
        assert_eq!(timeout(Parameter::Uint(u64::MAX)), Ok(Some(Duration::from_micros(u64::MAX))));
        assert_eq!(timeout(Parameter::Int(0)), Ok(None));
        assert!(timeout(Parameter::Int(-1)).is_err());
        assert!(timeout(Parameter::Double(1.0)).is_err());
        assert!(timeout(Parameter::Text("1s".to_owned())).is_err());
    }

    #[test]
    fn priorities_and_classes_are_small_whole_numbers() {
        assert_eq!(with("priority", Parameter::Uint(3)).priority(), Ok(3));
        assert_eq!(Parameters::default().priority(), Ok(0));
        assert!(with("priority", Parameter::Int(1 << 40)).priority().is_err());
        assert_eq!(with("classification", Parameter::Int(5)).classification(), Ok(Some(5)));
        assert_eq!(with("classification", Parameter::Int(0)).classification(), Ok(None));
        assert!(with("classification", Parameter::Bool(true)).classification().is_err());
    }

    #[test]
    fn a_sequence_is_refused_and_none_is_not() {
        for none in [Parameter::Bool(false), Parameter::Int(0), Parameter::Text(String::new())] {
            assert_eq!(with("sequence_id", none).refuse_sequences(), Ok(()));
        }
        for some in [Parameter::Bool(true), Parameter::Uint(7), Parameter::Text("a".to_owned())] {
            assert!(with("sequence_start", some).refuse_sequences().is_err());
        }
    }

    #[test]
    fn what_the_server_acts_upon_is_not_echoed() {
        let mut all: Parameters =
            RESERVED.iter().map(|name| ((*name).to_owned(), Parameter::Bool(true))).collect();
        all.set("triton_enable_empty_final_response", Parameter::Bool(true));
        all.set("colour", Parameter::Int(1));
        all.set("colour", Parameter::Text("red".to_owned()));
        assert_eq!(all.echoed(), with("colour", Parameter::Text("red".to_owned())));
    }
}
