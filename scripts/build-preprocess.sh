#!/usr/bin/env bash
# Compiles a model's own preprocessing (docs/preprocessing.md) and makes the component that lies beside its config.pbtxt.
#
# usage: scripts/build-preprocess.sh DIR OUT
#   DIR   the crate, a library of the type cdylib: preprocess-wasm/examples/netpbm is one; or a file of C
#         (preprocess-wasm/examples/netpbm-c/netpbm.c), which Zig compiles: scripts/compile-c-module.sh
#   OUT   the component: models/my-detector/preprocess.wasm
#
# What compiles it is what compiles the embedded component: rustup's target wasm32-unknown-unknown or Debian's packages,
# as scripts/setup-wasm-target.sh finds or installs them (WASM_TOOLCHAIN=rustup|debian forces one). wasm-tools is not
# needed: the crate wit-component, a part of it, is built with the sandbox. The component is written only after a
# sandbox has loaded it, as the server will.
set -euo pipefail

[ $# -eq 2 ] || { sed -n 's/^# \(usage:.*\)/\1/p' "$0" >&2; exit 64; }
[[ $1 == *.c && -f $1 ]] || [ -f "$1/Cargo.toml" ] || { echo "build-preprocess: there is no crate in $1." >&2; exit 64; }
[ -d "$(dirname "$2")" ] || { echo "build-preprocess: there is no folder $(dirname "$2")." >&2; exit 64; }
folder=$(realpath "$1")
out=$(realpath "$(dirname "$2")")/$(basename "$2")
cd "$(dirname "$0")/.."

# With what is built already: `make run` has made a release, `make test` a debug build.
profile=release
[ -x target/release/convoy ] || [ ! -d target/debug/deps ] || profile=dev
scripts/setup-wasm-target.sh

if [[ $folder == *.c ]]; then
    module=$(mktemp --suffix .wasm)
    trap 'rm -f "$module"' EXIT
    scripts/compile-c-module.sh "$folder" "$module"
    cargo run --quiet --locked --profile "$profile" -p sandbox --example component -- \
      "$module" preprocess-wasm/wit/preprocess.wit "$out"
    echo "build-preprocess: $out, $(wc -c <"$out") bytes"
    exit
fi

# The name of the core module: that of the library, which need not be the package's.
module=$(cargo metadata --no-deps --format-version 1 --manifest-path "$folder/Cargo.toml" | python3 -c '
import json, sys
targets = [target for package in json.load(sys.stdin)["packages"] for target in package["targets"]]
print(*[target["name"].replace("-", "_") for target in targets if "cdylib" in target["crate_types"]][:1])')
[ -n "$module" ] || { echo "build-preprocess: $folder has no library of the type cdylib." >&2; exit 64; }
[ -f "$folder/Cargo.lock" ] || cargo generate-lockfile --manifest-path "$folder/Cargo.toml"

echo "build-preprocess: compiling $folder; the first time, what makes and checks the component, too"
cargo run --quiet --locked --profile "$profile" -p sandbox --example component -- \
  "$folder" "$module.wasm" "$PWD/target/guest" "$out"
echo "build-preprocess: $out, $(wc -c <"$out") bytes"
