//! What compiles Rust for `wasm32-unknown-unknown` with simd128 and makes a component of it: for the build script, and
//! for the test that builds the examples.
//!
//! Two toolchains can do it (`scripts/setup-wasm-target.sh` installs one of them): the pinned one of rustup if it has
//! the target, else Debian's `rustc-web`, which builds the standard library from `rust-web-src`.
//! `WASM_TOOLCHAIN=rustup|debian` forces one.

#![allow(clippy::print_stderr)] // How a build script speaks to cargo.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
const RUSTFLAGS: &str = "-C target-feature=+simd128";
const SETUP: &str = "run scripts/setup-wasm-target.sh, which installs it";

/// What the build may see of this one's environment: where cargo keeps its downloads and how it reaches
/// the registry. All else is withheld: cargo gives a build script an empty `CARGO_ENCODED_RUSTFLAGS`, which would
/// silently switch simd128 off, and under clippy a `RUSTC_WORKSPACE_WRAPPER`, which breaks a build of std.
const PASSED_ON: [&str; 14] = [
    "HOME",
    "CARGO_HOME",
    "CARGO_NET_OFFLINE",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "TMPDIR",
];

/// Makes a component of a core module that `wit_bindgen` put the world into.
pub(crate) fn componentize(core: &Path) -> Result<Vec<u8>, String> {
    let module = fs::read(core).map_err(|error| format!("Reading {} failed: {error}.", core.display()))?;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| {
            format!("{} cannot be made a component: {error:#}.", core.display()).replace('\n', " ")
        })
}

/// What compiles for wasm.
pub(crate) enum Toolchain {
    /// The toolchain that compiles this crate; its sysroot has the target.
    Rustup { cargo: OsString, rustc: PathBuf },
    /// Debian's packages, which have the source of their standard library, and a linker for wasm.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// The one that is here, or that `WASM_TOOLCHAIN` names.
    pub(crate) fn choose() -> Result<Self, String> {
        match env::var("WASM_TOOLCHAIN").as_deref() {
            Ok("rustup") => {
                Self::rustup()?.ok_or_else(|| format!("The Rust toolchain has no target {TARGET}: {SETUP}."))
            }
            Ok("debian") => Self::debian()?.ok_or_else(|| {
                format!("Debian's packages that build for {TARGET} are not all here: {SETUP}.")
            }),
            Ok("") | Err(env::VarError::NotPresent) => match Self::rustup()? {
                Some(toolchain) => Ok(toolchain),
                None => Self::debian()?.ok_or_else(|| {
                    format!(
                        "Nothing here compiles for {TARGET}, as the preprocessing component needs: {SETUP}."
                    )
                }),
            },
            _ => Err("WASM_TOOLCHAIN must be `rustup` or `debian`.".to_owned()),
        }
    }

    fn rustup() -> Result<Option<Self>, String> {
        let sysroot = sysroot()?;
        let installed = sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(installed.then(|| Self::Rustup { cargo, rustc: sysroot.join("bin/rustc") }))
    }

    fn debian() -> Result<Option<Self>, String> {
        let there = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/Cargo.lock"]
            .iter()
            .all(|path| Path::new(path).exists());
        let host = host()?;
        let of_rustup = sysroot()?.join("lib/rustlib").join(host).join("bin/rust-lld");
        let linkers =
            [of_rustup, "/usr/bin/rust-lld".into(), "/usr/bin/lld-22".into(), "/usr/bin/lld".into()];
        let linker = linkers.into_iter().find(|path| path.exists());
        Ok(linker.filter(|_| there).map(|linker| Self::Debian { linker }))
    }

    /// Compiles the crate in `folder` and returns the path of its core module, whose name is `module`.
    pub(crate) fn compile(&self, folder: &Path, module: &str, target_dir: &Path) -> Result<PathBuf, String> {
        let mut path = env::var_os("PATH").unwrap_or_default();
        let mut command = match self {
            Self::Rustup { cargo, rustc } => {
                let mut command = Command::new(cargo);
                command.env_clear().env("RUSTC", rustc);
                command
            }
            Self::Debian { linker } => {
                let mut debian_first = OsString::from("/usr/bin:");
                debian_first.push(&path);
                path = debian_first;
                let mut command = Command::new("/usr/bin/cargo");
                command
                    .env_clear()
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        for name in PASSED_ON {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("PATH", path).env("RUSTFLAGS", RUSTFLAGS).current_dir(folder);
        command.args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"]).arg(target_dir);
        if matches!(self, Self::Debian { .. }) {
            command.args(["-Z", "build-std=std,panic_abort"]);
        }
        let output = command.output().map_err(|error| {
            format!("The compiler of the preprocessing component cannot be run: {error}.")
        })?;
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            return Err(format!(
                "Compiling the preprocessing component in {} failed: its messages are in the output below. If the \
                 target is what is missing, run scripts/setup-wasm-target.sh.",
                folder.display()
            ));
        }
        Ok(target_dir.join(TARGET).join("release").join(module))
    }
}

/// Of the toolchain that compiles this crate.
fn sysroot() -> Result<PathBuf, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("{} cannot be run: {error}.", rustc.to_string_lossy()))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The machine that this is, as rustc names it.
fn host() -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).arg("-vV").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("{} does not tell its host.", rustc.to_string_lossy()))
}
