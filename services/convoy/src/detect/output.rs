//! What `convoy detect` writes: results to standard output and nothing else there; errors and progress to standard
//! error.

use super::{Seen, table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

/// Writes results as they come.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    progress: ProgressBar,
}

impl Output {
    /// For `count` photos. Progress is shown on a terminal, when there is more than one photo.
    pub(super) fn new(json: bool, count: usize) -> Self {
        let progress = if count > 1 && io::stderr().is_terminal() {
            // Standard error is indicatif's own default.
            let bar = ProgressBar::new(count.try_into().unwrap_or(u64::MAX));
            let style = ProgressStyle::with_template("{bar:30} {pos} of {len} photos, {eta} left");
            bar.with_style(style.expect("the template is well-formed"))
        } else {
            ProgressBar::hidden()
        };
        Self { json, progress }
    }

    /// Writes what is known about one photo.
    pub(super) fn photo(&self, path: &Path, result: &Result<Seen, String>) -> io::Result<()> {
        self.progress.suspend(|| {
            if let Err(sentence) = result {
                writeln!(io::stderr(), "convoy: {}: {sentence}", path.display())?;
            }
            let mut out = io::stdout().lock();
            match result {
                _ if self.json => writeln!(out, "{}", line(path, result))?,
                Ok(seen) => write!(out, "{}", table::table(path, seen))?,
                Err(_) => {}
            }
            out.flush()
        })?;
        self.progress.inc(1);
        Ok(())
    }

    /// Takes the progress bar away.
    pub(super) fn finish(&self) {
        self.progress.finish_and_clear();
    }
}

/// One photo as one line of JSON.
fn line(path: &Path, result: &Result<Seen, String>) -> Value {
    let mut object = Map::new();
    object.insert("photo".to_owned(), path.to_string_lossy().into());
    match result {
        Ok(seen) => {
            object.insert("width".to_owned(), seen.width.into());
            object.insert("height".to_owned(), seen.height.into());
            if let Some(copy) = &seen.annotated {
                object.insert("annotated".to_owned(), copy.to_string_lossy().into());
            }
            object.extend(seen.answer.fields.clone());
        }
        Err(sentence) => {
            object.insert("error".to_owned(), sentence.as_str().into());
        }
    }
    Value::Object(object)
}
