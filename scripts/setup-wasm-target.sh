#!/usr/bin/env bash
# Installs what compiles the preprocessing component (preprocess-wasm/guest) for wasm32-unknown-unknown.
#
# usage: scripts/setup-wasm-target.sh
#
# Does nothing if it is there already. Else it tries rustup's target, and where rustup cannot fetch it, Debian's
# packages, which build the standard library from its source.
#   WASM_TOOLCHAIN=rustup|debian   forces one of them; the build (preprocess-wasm/host/build.rs) reads it as well.
set -euo pipefail

readonly TARGET=wasm32-unknown-unknown
readonly PACKAGES=(rustc-web cargo-web rust-web-src rust-web-llvm)
readonly DEBIAN_STD=/usr/lib/rustlib/src/rust/library/Cargo.lock

cd "$(dirname "${BASH_SOURCE[0]}")/.."

WORK=$(mktemp -d)
trap 'rm -rf -- "$WORK"' EXIT

say() { printf 'wasm target: %s\n' "$*"; }

fail() {
    printf 'wasm target: %s\n' "$@" >&2
    exit 1
}

# The Rust that compiles this repository: rust-toolchain.toml pins it.
sysroot() { rustc --print sysroot; }

# rustup's toolchain comes with a linker for wasm; Debian's is in a package of its own.
linker() {
    local candidate host
    if command -v rustc >/dev/null; then
        host=$(rustc -vV | sed -n 's/^host: //p')
        candidate=$(sysroot)/lib/rustlib/$host/bin/rust-lld
        [[ -x $candidate ]] && printf '%s\n' "$candidate" && return
    fi
    for candidate in /usr/bin/rust-lld /usr/bin/lld-22 /usr/bin/lld; do
        [[ -x $candidate ]] && printf '%s\n' "$candidate" && return
    done
    return 1
}

# Really compiles: the target's standard library is there, and linking needs no package that is missing.
rustup_has_target() {
    command -v rustc >/dev/null || return 1
    [[ -d $(sysroot)/lib/rustlib/$TARGET/lib ]] || return 1
    printf '#[no_mangle] pub extern "C" fn probe(n: u32) -> u32 { n.count_ones() }\n' >"$WORK/probe.rs"
    rustc --crate-type cdylib --target "$TARGET" -C target-feature=+simd128 \
        -o "$WORK/probe.wasm" "$WORK/probe.rs" 2>"$WORK/rustup.log"
}

# Looks for what the build needs: quick, so that a second `make run` is.
debian_has_target() {
    local lld
    [[ -x /usr/bin/rustc && -x /usr/bin/cargo && -f $DEBIAN_STD ]] || return 1
    lld=$(linker) && "$lld" -flavor wasm --version >"$WORK/debian.log" 2>&1
}

# Really compiles, once after the installation: core alone, since the whole of std would take a minute.
debian_compiles() {
    mkdir -p "$WORK/src"
    printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n[workspace]\n' \
        >"$WORK/Cargo.toml"
    printf '#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n%s\n' \
        '#[no_mangle] pub extern "C" fn probe(n: u32) -> u32 { n.count_ones() }' >"$WORK/src/lib.rs"
    env -i PATH="/usr/bin:$PATH" HOME="$HOME" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTC=/usr/bin/rustc \
        RUSTC_BOOTSTRAP=1 RUSTFLAGS='-C target-feature=+simd128 -C panic=abort' \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$(linker)" \
        /usr/bin/cargo build --quiet --release -Z build-std=core,panic_abort --target "$TARGET" \
        --manifest-path "$WORK/Cargo.toml" --target-dir "$WORK/target" 2>"$WORK/debian.log"
}

install_rustup_target() {
    command -v rustup >/dev/null || return 1
    say "rustup fetches $TARGET"
    rustup target add "$TARGET"
}

install_debian_packages() {
    local as_root=()
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null || return 1
        as_root=(sudo)
    fi
    local packages=("${PACKAGES[@]}")
    linker >/dev/null || packages+=(lld-22)
    say "apt-get installs ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

by_rustup() {
    rustup_has_target && say "ready: the Rust toolchain has $TARGET" && return
    install_rustup_target && rustup_has_target && say "ready: rustup installed $TARGET"
}

by_debian() {
    debian_has_target && say "ready: Debian's packages build for $TARGET" && return
    install_debian_packages && say "trying them" && debian_has_target && debian_compiles &&
        say "ready: Debian's packages build for $TARGET"
}

by_hand() {
    cat "$WORK"/*.log >&2 2>/dev/null || true
    fail "$1" \
        "By hand, one of:" \
        "  rustup target add $TARGET      (in this folder, so that the pinned toolchain gets it)" \
        "  apt-get install ${PACKAGES[*]} lld-22   (as root, on Debian)" \
        "and then run this script again."
}

case ${WASM_TOOLCHAIN:-} in
rustup) by_rustup || by_hand "rustup could not install $TARGET." ;;
debian) by_debian || by_hand "Debian's packages for $TARGET could not be installed, or do not work." ;;
'')
    # What is there already comes first, whichever it is; only then anything is fetched.
    if rustup_has_target; then
        say "ready: the Rust toolchain has $TARGET"
    elif debian_has_target; then
        say "ready: Debian's packages build for $TARGET"
    else
        by_rustup || { say "rustup cannot fetch it here, Debian's packages may"; by_debian; } ||
            by_hand "Nothing could be installed that compiles for $TARGET."
    fi
    ;;
*) fail "WASM_TOOLCHAIN is '$WASM_TOOLCHAIN', but it must be rustup or debian." ;;
esac
