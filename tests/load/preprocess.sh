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
# shellcheck source=tests/load/common.sh
. tests/load/common.sh
need_convoy
set_up_venv "gunicorn, PIL"

"$venv/bin/python" - tests/photos/double_decker_bus.jpg "$work/large.jpg" <<'PY'
import sys
from PIL import Image
with Image.open(sys.argv[1]) as photo:
    photo.resize((4000, 3000), Image.Resampling.BICUBIC).save(sys.argv[2], quality=90)
PY
cp tests/photos/double_decker_bus.jpg "$work/photo.jpg"

# /preprocess asks neither of the services behind: none runs there.
"$convoy" feature-service --feature-addr 127.0.0.1:0 --ready-file "$work/ready" --log-level warn 2>"$work/convoy.log" &
pids+=($!)
start_gunicorn pillow_service:app
ours=$(wait_for convoy_address feature)
theirs=$(wait_for gunicorn_address)

"$venv/bin/python" tests/load/preprocess_load.py "$seconds" "$rounds" "convoy=http://$ours" "pillow=http://$theirs" -- \
  "$work/photo.jpg" "$work/large.jpg"
