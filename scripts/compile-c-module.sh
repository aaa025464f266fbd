#!/usr/bin/env bash
# Compiles a file of C to a core module without imports, for scripts/build-preprocess.sh.
#
# usage: scripts/compile-c-module.sh SOURCE.c MODULE.wasm
#
# Zig's compiler of C does it, which needs nothing else: the one that ZIG names, `zig`, or Python's package ziglang
# (`pip install ziglang`). Without any it ends with 69.
set -euo pipefail

[ $# -eq 2 ] || { sed -n 's/^# \(usage:.*\)/\1/p' "$0" >&2; exit 64; }
if [ -n "${ZIG:-}" ]; then
    zig=("$ZIG")
elif command -v zig >/dev/null; then
    zig=(zig)
elif python3 -c 'import ziglang' 2>/dev/null; then
    zig=(python3 -m ziglang)
else
    echo "compile-c-module: there is no Zig: install it, or \`pip install ziglang\`, or say where it is with ZIG." >&2
    exit 69
fi
# No C library and no entry point: what is exported, the source says.
"${zig[@]}" cc --target=wasm32-freestanding -std=c11 -O2 -Wall -Wextra -mbulk-memory -msimd128 -nostdlib -Wl,--no-entry \
    -Wl,--strip-all -o "$2" "$1"
