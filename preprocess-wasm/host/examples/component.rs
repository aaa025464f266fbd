//! Makes a component of a crate that has a model's own preprocessing, and loads it as the server would.
//!
//! `scripts/build-preprocess.sh` calls it: `component FOLDER MODULE TARGET_DIR OUT`. It compiles the crate in `FOLDER`
//! with what compiles the embedded component, takes the core module `MODULE` from `TARGET_DIR`, and writes `OUT` once a
//! sandbox has accepted the component: one that imports anything, or lacks the interface, is never there to be copied.

#![allow(clippy::print_stderr)] // It speaks to a person at a terminal.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sandbox::{Sandbox, SandboxConfig};
use toolchain::{Toolchain, componentize};

#[path = "../build/toolchain.rs"]
mod toolchain;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, module, target_dir, out] = &arguments[..] else {
        eprintln!("usage: component FOLDER MODULE TARGET_DIR OUT");
        return ExitCode::from(64);
    };
    match build(folder, module, target_dir, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("component: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build(folder: &Path, module: &Path, target_dir: &Path, out: &Path) -> Result<(), String> {
    let core = Toolchain::choose()?.compile(folder, &module.to_string_lossy(), target_dir)?;
    let component = componentize(&core)?;
    let unproven = out.with_extension("unproven");
    let failed = |error: std::io::Error| format!("{} cannot be written: {error}.", out.display());
    fs::write(&unproven, component).map_err(failed)?;
    let config = SandboxConfig { component: Some(unproven.clone()), workers: 1, ..SandboxConfig::default() };
    match Sandbox::new(config) {
        Ok(_) => fs::rename(&unproven, out).map_err(failed),
        Err(error) => {
            // What is left over is of no use, and another failure would only hide this one.
            let _ = fs::remove_file(&unproven);
            Err(format!("The server would refuse the component. {error}"))
        }
    }
}
