//! Compiles the guest for `wasm32-unknown-unknown` with simd128, makes it a component, and leaves it in `OUT_DIR`,
//! from where `src/component.rs` embeds it.
//!
//! `build/toolchain.rs` says what compiles it.

#![allow(clippy::print_stdout, clippy::print_stderr)] // How a build script speaks to cargo.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use toolchain::{Toolchain, componentize};

fn main() -> ExitCode {
    for path in ["build.rs", "build", "../guest/src", "../guest/Cargo.toml", "../guest/Cargo.lock", "../wit"]
    {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=WASM_TOOLCHAIN");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let guest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../guest");
    let target_dir = guest_target_dir(&out)?;
    let toolchain = Toolchain::choose()?;
    let core = toolchain.compile(&guest, "preprocess_guest.wasm", &target_dir)?;
    let component = componentize(&core)?;
    let path = out.join("preprocess.component.wasm");
    fs::write(&path, component).map_err(|error| format!("Writing {} failed: {error}.", path.display()))
}

/// `target/guest`, the same for all profiles: in `OUT_DIR` the guest, and with it std, would be built for each.
fn guest_target_dir(out: &Path) -> Result<PathBuf, String> {
    let build = out.ancestors().find(|path| path.file_name().is_some_and(|name| name == "build"));
    let mut root = build
        .and_then(Path::parent) // debug, release, …
        .and_then(Path::parent)
        .ok_or_else(|| format!("The target folder cannot be told from OUT_DIR, {}.", out.display()))?;
    // Under `--target`, a folder of the target's name lies in between.
    if let (Some(name), Some(parent)) = (root.file_name(), root.parent())
        && env::var_os("TARGET").is_some_and(|target| target == name)
    {
        root = parent;
    }
    Ok(root.join("guest"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this script is run by cargo."))
}
