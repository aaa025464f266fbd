//! Makes a component of a crate that has a model's own preprocessing, and loads it as the server would.
//!
//! `scripts/build-preprocess.sh` calls it: `component FOLDER MODULE TARGET_DIR OUT`. It compiles the crate in `FOLDER`
//! with what compiles the embedded component, takes the core module `MODULE` from `TARGET_DIR`, and writes `OUT` once a
//! sandbox has accepted the component: one that imports anything, or lacks the interface, is never there to be copied.
//!
//! `component MODULE WIT OUT` makes it of a core module that another compiler made, which does not know the world.

#![allow(clippy::print_stderr)] // It speaks to a person at a terminal.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sandbox::{Sandbox, SandboxConfig};
use toolchain::{Toolchain, componentize};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

#[path = "../build/toolchain.rs"]
mod toolchain;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let built = match &arguments[..] {
        [folder, module, target_dir, out] => {
            compile(folder, module, target_dir).and_then(|component| write(&component, out))
        }
        [module, wit, out] => with_world(module, wit).and_then(|component| write(&component, out)),
        _ => {
            eprintln!("usage: component FOLDER MODULE TARGET_DIR OUT\n       component MODULE WIT OUT");
            return ExitCode::from(64);
        }
    };
    match built {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("component: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn compile(folder: &Path, module: &Path, target_dir: &Path) -> Result<Vec<u8>, String> {
    componentize(&Toolchain::choose()?.compile(folder, &module.to_string_lossy(), target_dir)?)
}

/// Tells a core module its world, and makes a component of it.
fn with_world(module: &Path, wit: &Path) -> Result<Vec<u8>, String> {
    let failed = |what: &Path, error: &dyn std::fmt::Display| {
        format!("{} cannot be used: {error:#}.", what.display()).replace('\n', " ")
    };
    let mut resolve = Resolve::default();
    let world = fs::read_to_string(wit)
        .map_err(|error| failed(wit, &error))
        .and_then(|text| resolve.push_str(wit, &text).map_err(|error| failed(wit, &error)))
        .and_then(|package| {
            resolve.select_world(&[package], Some("preprocessor")).map_err(|error| failed(wit, &error))
        })?;
    let mut core = fs::read(module).map_err(|error| failed(module, &error))?;
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .and_then(|()| ComponentEncoder::default().validate(true).module(&core)?.encode())
        .map_err(|error| failed(module, &error))
}

fn write(component: &[u8], out: &Path) -> Result<(), String> {
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
