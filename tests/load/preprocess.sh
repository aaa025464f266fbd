#!/usr/bin/env bash
# POST /preprocess beside a service of Flask and Pillow that does the same (tests/load/pillow_service.py): images per
# second in a closed loop at 8, for the sample photo and for one of 12 megapixels.
#
#   tests/load/preprocess.sh [SECONDS [ROUNDS]]      default: 10 s for each of 3 rounds
#
# Needs target/release/convoy (make build) and python3 with venv; Flask, gunicorn and Pillow go into .convoy/load-venv.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-10} rounds=${2:-3}
convoy=${CONVOY:-target/release/convoy}
venv=.convoy/load-venv
[ -x "$convoy" ] || { echo "There is no $convoy: run make build." >&2; exit 1; }
if ! "$venv/bin/python" -c 'import gunicorn, PIL' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement tests/load/requirements.txt
fi

work=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait || true
  rm -rf "$work"
}
trap finish EXIT

"$venv/bin/python" - tests/photos/double_decker_bus.jpg "$work/large.jpg" <<'PY'
import sys
from PIL import Image
with Image.open(sys.argv[1]) as photo:
    photo.resize((4000, 3000), Image.Resampling.BICUBIC).save(sys.argv[2], quality=90)
PY
cp tests/photos/double_decker_bus.jpg "$work/photo.jpg"

# /preprocess asks neither of the services behind: none runs there.
"$convoy" feature-service --addr 127.0.0.1:0 --ready-file "$work/ready" --log-level warn &
pids+=($!)
"$venv/bin/gunicorn" --chdir tests/load --workers 2 --bind 127.0.0.1:0 --log-level info pillow_service:app \
  2>"$work/gunicorn.log" &
pids+=($!)
for _ in $(seq 300); do
  ours=$(grep -oE '127\.0\.0\.1:[0-9]+' "$work/ready" 2>/dev/null | head -1 || true)
  theirs=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$work/gunicorn.log" | head -1 || true)
  [ -n "$ours" ] && [ -n "$theirs" ] && break
  sleep 0.1
done
[ -n "$ours" ] && [ -n "$theirs" ] || { echo "The services did not start." >&2; cat "$work/gunicorn.log" >&2; exit 1; }

"$venv/bin/python" tests/load/preprocess_load.py "$seconds" "$rounds" "convoy=http://$ours" "pillow=$theirs" -- \
  "$work/photo.jpg" "$work/large.jpg"
