//! What became of an image, as a word for metrics: one for each variant of [`SandboxError`], and one for success.

use std::fmt;

use crate::SandboxError;

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was preprocessed.
    Accepted,
    /// [`SandboxError::Empty`]
    Empty,
    /// [`SandboxError::NotAnImage`]
    NotAnImage,
    /// [`SandboxError::UnsupportedFormat`]
    UnsupportedFormat,
    /// [`SandboxError::Truncated`]
    Truncated,
    /// [`SandboxError::Corrupt`]
    Corrupt,
    /// [`SandboxError::TooManyPixels`]
    TooManyPixels,
    /// [`SandboxError::TooLarge`]
    TooLarge,
    /// [`SandboxError::InvalidOptions`]
    InvalidOptions,
    /// [`SandboxError::OutOfMemory`]
    OutOfMemory,
    /// [`SandboxError::OutOfTime`]
    OutOfTime,
    /// [`SandboxError::DeadlineExceeded`]
    DeadlineExceeded,
    /// [`SandboxError::Trapped`]
    Trapped,
    /// [`SandboxError::Busy`]
    Busy,
    /// [`SandboxError::Stopped`]
    Stopped,
    /// [`SandboxError::Component`]
    Component,
}

impl Verdict {
    /// Every verdict there is, for whoever shows counts from the start.
    pub const ALL: [Self; 16] = [
        Self::Accepted,
        Self::Empty,
        Self::NotAnImage,
        Self::UnsupportedFormat,
        Self::Truncated,
        Self::Corrupt,
        Self::TooManyPixels,
        Self::TooLarge,
        Self::InvalidOptions,
        Self::OutOfMemory,
        Self::OutOfTime,
        Self::DeadlineExceeded,
        Self::Trapped,
        Self::Busy,
        Self::Stopped,
        Self::Component,
    ];

    /// Of what the sandbox answered.
    pub fn of<T>(answer: &Result<T, SandboxError>) -> Self {
        match answer {
            Ok(_) => Self::Accepted,
            Err(error) => error.verdict(),
        }
    }

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Empty => "empty",
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedFormat => "unsupported_format",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::TooManyPixels => "too_many_pixels",
            Self::TooLarge => "too_large",
            Self::InvalidOptions => "invalid_options",
            Self::OutOfMemory => "out_of_memory",
            Self::OutOfTime => "out_of_time",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Trapped => "trapped",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Component => "component",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl SandboxError {
    /// The word for it in metrics.
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Empty => Verdict::Empty,
            Self::NotAnImage => Verdict::NotAnImage,
            Self::UnsupportedFormat { .. } => Verdict::UnsupportedFormat,
            Self::Truncated { .. } => Verdict::Truncated,
            Self::Corrupt { .. } => Verdict::Corrupt,
            Self::TooManyPixels { .. } => Verdict::TooManyPixels,
            Self::TooLarge { .. } => Verdict::TooLarge,
            Self::InvalidOptions { .. } => Verdict::InvalidOptions,
            Self::OutOfMemory { .. } => Verdict::OutOfMemory,
            Self::OutOfTime { .. } => Verdict::OutOfTime,
            Self::DeadlineExceeded => Verdict::DeadlineExceeded,
            Self::Trapped { .. } => Verdict::Trapped,
            Self::Busy { .. } => Verdict::Busy,
            Self::Stopped => Verdict::Stopped,
            Self::Component { .. } => Verdict::Component,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_verdict_is_listed_once_under_a_word_of_its_own() {
        let words: HashSet<_> = Verdict::ALL.map(Verdict::as_str).into();
        assert_eq!(words.len(), Verdict::ALL.len());
        assert_eq!(Verdict::of(&Ok::<(), _>(())), Verdict::Accepted);
        assert_eq!(Verdict::of::<()>(&Err(SandboxError::Stopped)).to_string(), "stopped");
    }
}
