#!/usr/bin/env bash
# Fuzzes with libFuzzer, from the corpus of hostile images on.
#
# usage: scripts/fuzz.sh guest|host [SECONDS] [LIBFUZZER-FLAG...]        (default: 60 seconds)
#
# It does what `cargo fuzz run` does, without needing cargo-fuzz: it takes nightly Rust if rustup has it, else the pinned Rust
# with RUSTC_BOOTSTRAP=1, which lets it take the same unstable flags. A C++ compiler builds libFuzzer's runtime.
# The folder is laid out for cargo-fuzz as well (`cargo +nightly fuzz run guest fuzz/corpus/guest tests/corpus/files`, and with
# `--features host` the other one).
#
# SANITIZER=none leaves AddressSanitizer out, for machines without its runtime: all code here is safe Rust but for what
# dependencies do, and it is faster. What it finds is in fuzz/artifacts/; what it has learnt, in fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

target=${1:?usage: scripts/fuzz.sh guest|host [SECONDS] [LIBFUZZER-FLAG...]}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
host=$(rustc -vV | sed -n 's/^host: //p')

toolchain=()
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    toolchain=(+nightly)
else
    export RUSTC_BOOTSTRAP=1
fi

case $target in
    guest) features=() seeds=(../tests/corpus/files) max_len=65536 ;;
    host) features=(--features host) seeds=(seeds/host) max_len=512 ;;
    *) echo "There is no target $target: guest or host." >&2; exit 64 ;;
esac

# cargo-fuzz's own: coverage for libFuzzer, and what a release build leaves unchecked.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
flags+=" --cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
sanitizer=${SANITIZER:-address}
[ "$sanitizer" = none ] || flags+=" -Zsanitizer=$sanitizer"
RUSTFLAGS=$flags cargo "${toolchain[@]}" build --release --locked --target "$host" --bin "$target" "${features[@]}"

mkdir -p "corpus/$target" "artifacts/$target"
# Of larger files the beginnings do: what the rest of a bomb does is known.
exec "target/$host/release/$target" "corpus/$target" "${seeds[@]}" "regressions/$target" \
    -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -max_len="$max_len" -timeout=25 -rss_limit_mb=4096 \
    -print_final_stats=1 "$@"
