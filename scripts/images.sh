#!/usr/bin/env bash
# Builds both images with Docker and prints their sizes.
#
#   scripts/images.sh            convoy:cpu and convoy:cuda
#   scripts/images.sh cpu|cuda   only one of them
#
# WASM_TOOLCHAIN=debian for machines that rustup's servers are out of reach of. VERSION and REVISION go into the labels.
set -euo pipefail
cd "$(dirname "$0")/.."

docker info >/dev/null 2>&1 || { echo "images: no container engine answers; start Docker." >&2; exit 69; }
version=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
for kind in ${1:-cpu cuda}; do
  DOCKER_BUILDKIT=1 docker build --file "Dockerfile.$kind" --tag "convoy:$kind" \
    --build-arg WASM_TOOLCHAIN="${WASM_TOOLCHAIN:-}" --build-arg VERSION="$version" --build-arg REVISION="$revision" .
done
for kind in ${1:-cpu cuda}; do
  printf 'images: convoy:%s has %d MB\n' "$kind" "$(($(docker image inspect --format '{{.Size}}' "convoy:$kind") / 1000000))"
done
