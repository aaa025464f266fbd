#!/usr/bin/env bash
# Puts ONNX Runtime's CPU library into .convoy/onnxruntime/, from the wheel that its authors publish on PyPI.
#
#   scripts/setup-onnxruntime.sh [DEST]      DEST: .convoy/onnxruntime under the repository unless given
#
# The version is pinned and the wheel's sha256 is checked before anything is unpacked. Safe to run again: it does
# nothing when DEST already holds this version. `convoy` finds the library in the default place by itself;
# elsewhere set ORT_DYLIB_PATH=DEST/libonnxruntime.so.
set -euo pipefail

version=1.32.0
root=$(cd "$(dirname "$0")/.." && pwd)
dest=${1:-$root/.convoy/onnxruntime}
shown=${dest#"$root"/}

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64)
    platform=manylinux_2_28_x86_64
    sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
  Linux-aarch64)
    platform=manylinux_2_28_aarch64
    sha256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
  *)
    echo "setup-onnxruntime: no pinned wheel for $(uname -s) $(uname -m)." >&2
    echo "  By hand: install ONNX Runtime $version and set ORT_DYLIB_PATH to its shared library." >&2
    exit 1 ;;
esac

if [ "$(cat "$dest/VERSION" 2>/dev/null)" = "$version $sha256" ] && [ -s "$dest/libonnxruntime.so" ]; then
  echo "onnxruntime: $version is in $shown"
  exit 0
fi

by_hand() {
  echo "setup-onnxruntime: $1" >&2
  echo "  By hand: download the wheel onnxruntime-$version (cp311, $platform) from PyPI and put" >&2
  echo "  onnxruntime/capi/libonnxruntime.so.$version from it at $dest/libonnxruntime.so" >&2
  exit 1
}

python3 -m pip --version >/dev/null 2>&1 || by_hand "python3 with pip is needed (Debian: apt-get install python3-pip)."

echo "onnxruntime: fetching $version (about 20 MB)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One Python version for everybody: the library inside does not depend on it, the wheel's sha256 does.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version 3.11 --implementation cp --platform "$platform" --dest "$work" "onnxruntime==$version" ||
  by_hand "pip could not download the wheel."
wheel=$(echo "$work"/onnxruntime-*.whl)
echo "$sha256  $wheel" | sha256sum --check --quiet || by_hand "the wheel's sha256 is not the pinned one."

python3 -m zipfile -e "$wheel" "$work/wheel"
library=$(echo "$work"/wheel/onnxruntime/capi/libonnxruntime.so.*)
[ -s "$library" ] || by_hand "the wheel holds no libonnxruntime.so."
mkdir -p "$dest"
# Gone while the rest is written: a run that is cut off is not taken for a complete one.
rm -f "$dest/VERSION"
install -m 644 "$library" "$dest/libonnxruntime.so"
cp "$work/wheel/onnxruntime/LICENSE" "$work/wheel/onnxruntime/ThirdPartyNotices.txt" "$dest/"
# Written last: its presence says that the rest is complete.
echo "$version $sha256" >"$dest/VERSION"
echo "onnxruntime: $version is in $shown"
