//! What this crate logs, for tests.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// Collects the lines of this crate that are logged on one thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Collects until the answer is dropped.
    pub(crate) fn collect(&self) -> DefaultGuard {
        let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE);
        tracing::subscriber::set_default(subscriber.with_writer(self.clone()).finish())
    }

    /// What was logged.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["target"].as_str().unwrap().starts_with("model_serving")).collect()
    }

    /// The levels of what was logged.
    pub(crate) fn levels(&self) -> Vec<String> {
        self.lines().iter().map(|line| line["level"].as_str().unwrap().to_owned()).collect()
    }
}

/// The levels of what `work` logs on this thread.
pub(crate) fn levels(work: impl FnOnce()) -> Vec<String> {
    let log = Log::new();
    let collecting = log.collect();
    work();
    drop(collecting);
    log.levels()
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
