#!/usr/bin/env bash
# Puts ONNX Runtime with its CUDA provider, and the libraries of CUDA 13 and cuDNN 9 that it loads, into one folder.
#
#   scripts/setup-onnxruntime-cuda.sh [DEST]      DEST: .convoy/onnxruntime-cuda under the repository unless given
#
# All come from wheels that their makers publish on PyPI, pinned by version and sha256 in
# scripts/onnxruntime-cuda-requirements.txt (about 1.6 GB to fetch, 2.3 GB unpacked). The driver (580 or newer) is the
# host's. Safe to run again. Then:
#   ORT_DYLIB_PATH=DEST/libonnxruntime.so LD_LIBRARY_PATH=DEST convoy up --device cuda
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-$root/.convoy/onnxruntime-cuda}
requirements=$root/scripts/onnxruntime-cuda-requirements.txt
shown=${dest#"$root"/}

fail() { echo "setup-onnxruntime-cuda: $1" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "the pinned wheels are for Linux on x86_64, and this is $(uname -s) on $(uname -m)."
stamp=$(sha256sum <"$requirements" | cut -d' ' -f1)
if [ "$(cat "$dest/VERSION" 2>/dev/null)" = "$stamp" ] && [ -s "$dest/libonnxruntime.so" ]; then
  echo "onnxruntime-cuda: in $shown"
  exit 0
fi
python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed (Debian: apt-get install python3-pip)."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "onnxruntime-cuda: fetching (about 1.6 GB)"
python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
  --python-version 3.11 --implementation cp --abi cp311 --abi none \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux2010_x86_64 --platform manylinux1_x86_64 \
  --dest "$work" -r "$requirements" || fail "pip could not download the wheels of $requirements."

rm -f "$dest/VERSION"
mkdir -p "$dest/licenses"
for wheel in "$work"/*.whl; do
  python3 -m zipfile -e "$wheel" "$work/wheel"
  rm "$wheel"
done
# Only what is loaded: no headers, no static libraries, nothing of Python, and not the two wrappers for other programs.
find "$work/wheel" \( -name 'libonnxruntime*.so*' -o -path '*/nvidia/*/lib/*.so.*' \) \
  ! -name 'libnvblas*' ! -name 'libcufftw*' ! -name 'libonnxruntime_providers_tensorrt.so' ! -name '*.alt.so*' \
  -exec mv -f {} "$dest/" \;
find "$work/wheel" -type f -path '*.dist-info/*' \( -iname 'license*' -o -iname 'notice*' \) | while read -r file; do
  package=${file%%.dist-info/*}
  cp "$file" "$dest/licenses/$(basename "$package")-$(basename "$file")"
done
cp "$work"/wheel/onnxruntime/{LICENSE,ThirdPartyNotices.txt} "$dest/licenses/"
mv -f "$dest"/libonnxruntime.so.[0-9]* "$dest/libonnxruntime.so"
chmod 644 "$dest"/*.so*
# Written last: its presence says that the rest is complete.
echo "$stamp" >"$dest/VERSION"
echo "onnxruntime-cuda: in $shown ($(du -sh "$dest" | cut -f1))"
