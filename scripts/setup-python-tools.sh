#!/usr/bin/env bash
# Puts the Python packages of the end-to-end tests into .convoy/: grpcio, its code generator and Pillow into python/,
# NVIDIA's tritonclient, which wants other versions of some of them, into tritonclient/, and schemathesis into
# schemathesis/.
#
#   scripts/setup-python-tools.sh [DEST]      only the first, into DEST
#
# The versions are pinned and the sha256 of every file is checked: tests/python/requirements*.txt. Nothing outside of
# these folders is touched. Safe to run again: it does nothing where these versions already are for this Python. Where
# tritonclient or schemathesis cannot be installed, its tests are skipped, and say so.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)

by_hand() { # WHY [DEST REQUIREMENTS]
  echo "setup-python-tools: $1" >&2
  if [ $# -gt 1 ]; then
    echo "  By hand: python3 -m pip install --require-hashes --no-deps --only-binary=:all: --target '$2' -r '$3'" >&2
  fi
  return 1
}

command -v python3 >/dev/null || by_hand "python3 is needed (Debian: apt-get install python3 python3-pip)."
python3 -m pip --version >/dev/null 2>&1 ||
  by_hand "pip is needed for python3 (Debian: apt-get install python3-pip)."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || by_hand "Python 3.10 or newer is needed."
# The wheels hold native code for one Python and one machine: another python3 needs them anew.
python=$(python3 -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())')

work=
trap 'rm -rf "$work"' EXIT

install_into() { # DEST REQUIREMENTS SIZE
  local dest=$1 requirements=$2 stamp
  stamp="$python $(sha256sum <"$requirements" | cut -d' ' -f1)"
  if [ "$(cat "$dest/VERSION" 2>/dev/null)" = "$stamp" ]; then
    echo "python tools: in $dest"
    return
  fi
  echo "python tools: installing (about $3)"
  mkdir -p "$(dirname "$dest")"
  # Beside DEST, so that a run that is cut off leaves nothing half-done there.
  work=$(mktemp -d "$dest.XXXXXX")
  if ! PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
    --require-hashes --only-binary=:all: --target "$work" -r "$requirements"; then
    by_hand "pip could not install the packages." "$dest" "$requirements" || return 1
  fi
  echo "$stamp" >"$work/VERSION"
  rm -rf "$dest"
  mv "$work" "$dest"
  chmod 755 "$dest"
  echo "python tools: in $dest"
}

install_into "${1:-$root/.convoy/python}" "$root/tests/python/requirements.txt" "20 MB" || exit 1
if [ $# -eq 0 ]; then
  install_into "$root/.convoy/tritonclient" "$root/tests/python/requirements-triton.txt" "60 MB" ||
    echo "setup-python-tools: the tests of tritonclient will be skipped." >&2
  install_into "$root/.convoy/schemathesis" "$root/tests/python/requirements-schemathesis.txt" "25 MB" ||
    echo "setup-python-tools: the tests with schemathesis will be skipped." >&2
fi
