#!/usr/bin/env bash
# Puts the Python packages of the end-to-end tests (grpcio, its code generator, Pillow) into .convoy/python/.
#
#   scripts/setup-python-tools.sh [DEST]      DEST: .convoy/python under the repository unless given
#
# The versions are pinned and the sha256 of every file is checked: tests/python/requirements.txt. Nothing outside DEST
# is touched. Safe to run again: it does nothing when DEST already holds these versions for this Python.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
requirements=$root/tests/python/requirements.txt
dest=${1:-$root/.convoy/python}
shown=${dest#"$root"/}

by_hand() {
  echo "setup-python-tools: $1" >&2
  echo "  By hand: python3 -m pip install --require-hashes --only-binary=:all: --target '$dest' -r '$requirements'" >&2
  exit 1
}

command -v python3 >/dev/null || by_hand "python3 is needed (Debian: apt-get install python3 python3-pip)."
python3 -m pip --version >/dev/null 2>&1 ||
  by_hand "pip is needed for python3 (Debian: apt-get install python3-pip)."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || by_hand "Python 3.10 or newer is needed."

# The wheels hold native code for one Python and one machine: another python3 needs them anew.
python=$(python3 -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())')
stamp="$python $(sha256sum <"$requirements" | cut -d' ' -f1)"
if [ "$(cat "$dest/VERSION" 2>/dev/null)" = "$stamp" ]; then
  echo "python tools: in $shown"
  exit 0
fi

echo "python tools: installing (about 20 MB)"
mkdir -p "$(dirname "$dest")"
# Beside DEST, so that a run that is cut off leaves nothing half-done there.
work=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$work"' EXIT
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
  --only-binary=:all: --target "$work" -r "$requirements" ||
  by_hand "pip could not install the packages."
echo "$stamp" >"$work/VERSION"
rm -rf "$dest"
mv "$work" "$dest"
chmod 755 "$dest"
echo "python tools: in $shown"
