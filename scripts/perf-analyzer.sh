#!/usr/bin/env bash
# Runs NVIDIA's perf_analyzer against a running server; the first run puts it into .convoy/perf-analyzer/.
#
#   scripts/perf-analyzer.sh [OPTION...]      the options are perf_analyzer's, for example
#     scripts/perf-analyzer.sh -m vehicle-detector -i grpc -u localhost:50051 --concurrency-range 1:64
#   scripts/perf-analyzer.sh --setup          only the set-up
#
# The binary is that of the wheel tritonclient 2.46.0, as NVIDIA publishes it on PyPI. It wants libcudart.so.12 (from
# the wheel nvidia-cuda-runtime-cu12; no GPU is needed) and libb64.so.0d (Debian's package libb64-0d; one that is
# installed is used). The versions are pinned, and the sha256 of every file is checked before anything is unpacked.
# Nothing outside .convoy is touched. Exit code 69 says that it cannot be had here.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=$root/.convoy/perf-analyzer
client=tritonclient==2.46.0
client_sha256=10d2cda89b72599757ef5aeab160c39c6dead64a97871c6156cdf25043f2f655
cudart=nvidia-cuda-runtime-cu12==12.9.79
cudart_sha256=25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
b64=libb64-0d=1.2-5+b1
b64_sha256=b0e1d6fde8bdccc18c3884144aede064dc82464dd4777275fa80e74c05583e82
stamp="$client_sha256 $cudart_sha256 $b64_sha256"

cannot() {
  echo "perf-analyzer: $1" >&2
  exit 69
}

wheel() { # PACKAGE SHA256 PLATFORM: its path
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --implementation py --platform "$3" --dest "$work/$2" "$1" >&2 ||
    cannot "pip could not download $1."
  local file
  file=$(echo "$work/$2"/*.whl)
  echo "$2  $file" | sha256sum --check --quiet >&2 || cannot "the sha256 of $file is not the pinned one."
  echo "$file"
}

setup() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || cannot "NVIDIA publishes it for Linux on x86_64 only."
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    cannot "python3 with pip is needed (Debian: apt-get install python3-pip)."
  echo "perf-analyzer: fetching (about 16 MB)" >&2
  mkdir -p "$(dirname "$dest")"
  # Beside DEST, so that a run that is cut off leaves nothing half-done there.
  work=$(mktemp -d "$dest.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  local files=$work/files file
  mkdir "$files"
  file=$(wheel "$client" "$client_sha256" manylinux1_x86_64)
  python3 -m zipfile -e "$file" "$work/client"
  install -m 755 "$work"/client/tritonclient-*.data/data/bin/perf_analyzer "$files/perf_analyzer"
  cp "$work"/client/tritonclient-*.data/data/LICENSE.txt "$files/LICENSE"
  file=$(wheel "$cudart" "$cudart_sha256" manylinux2014_x86_64)
  python3 -m zipfile -e "$file" "$work/cudart"
  install -m 644 "$work/cudart/nvidia/cuda_runtime/lib/libcudart.so.12" "$files/"
  if ! ldconfig -p 2>/dev/null | grep -q 'libb64\.so\.0d'; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
      cannot "libb64.so.0d is needed: install it with the system's packages."
    (mkdir "$work/b64" && cd "$work/b64" && apt-get download --quiet "$b64" >/dev/null 2>&1) ||
      cannot "Debian's $b64 cannot be downloaded: apt-get install libb64-0d."
    echo "$b64_sha256  $(echo "$work"/b64/*.deb)" | sha256sum --check --quiet >&2 ||
      cannot "the sha256 of Debian's $b64 is not the pinned one: apt-get install libb64-0d."
    dpkg-deb --extract "$work"/b64/*.deb "$work/b64"
    cp "$work"/b64/usr/lib/*/libb64.so.0d "$files/"
  fi
  local missing
  missing=$(LD_LIBRARY_PATH=$files ldd "$files/perf_analyzer" | grep 'not found' || true)
  [ -z "$missing" ] || cannot "libraries are missing: $missing"
  echo "$stamp" >"$files/VERSION"
  rm -rf "$dest"
  mv "$files" "$dest"
  rm -rf "$work"
}

[ "$(cat "$dest/VERSION" 2>/dev/null)" = "$stamp" ] || setup
if [ "${1:-}" = --setup ]; then
  echo "perf-analyzer: in $dest"
  exit 0
fi
LD_LIBRARY_PATH=$dest${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$dest/perf_analyzer" "$@"
