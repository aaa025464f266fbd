#!/usr/bin/env bash
# Measures results-service beside a Flask + sqlite3 service (flask_results.py) on this machine, in turns: POST and GET by
# id, closed loop of 32 clients, every answer after its own sync. Prints a line of JSON for each turn, and the ratios of
# the medians.
#
#   tests/load/results.sh            about two minutes, after the build
#   ROUNDS=5 SECONDS_EACH=10 tests/load/results.sh
#   SERVER="target/release/convoy results-service" tests/load/results.sh   the real binary instead of the example's
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-3}
each=${SECONDS_EACH:-5}
clients=${CLIENTS:-32}
folder=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT

venv=.convoy/load-venv
if [ ! -x "$venv/bin/gunicorn" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement tests/load/requirements.txt
fi
cargo build --release --locked -p results-service --example results_load
load=${CARGO_TARGET_DIR:-target}/release/examples/results_load

until_up() {
    for _ in $(seq 200); do
        curl --silent --fail --output /dev/null "$1" && return
        sleep 0.05
    done
    echo "$1 does not answer" >&2
    exit 1
}

if [ -n "${SERVER:-}" ]; then
    DB_PATH=$folder/convoy.db RESULTS_ADDR=127.0.0.1:5202 ADMIN_ADDR=127.0.0.1:0 $SERVER 2>/dev/null &
else
    "$load" serve "$folder/convoy.db" 127.0.0.1:5202 &
fi
pids+=($!)
DB_PATH=$folder/flask.db "$venv/bin/gunicorn" --workers 2 --bind 127.0.0.1:5102 --chdir tests/load \
    --log-level error flask_results:app &
pids+=($!)
until_up http://127.0.0.1:5202/ready
until_up http://127.0.0.1:5102/health

declare -A url=([convoy]=http://127.0.0.1:5202 [flask]=http://127.0.0.1:5102)
for round in $(seq "$rounds"); do
    for what in post get; do
        for who in flask convoy; do
            line=$("$load" "$what" "${url[$who]}" --clients "$clients" --seconds "$each" --ids "$folder/$who.ids")
            echo "$line" >> "$folder/$who.$what"
            echo "round $round $who $what $line"
        done
    done
done
python3 - "$folder" <<'PYTHON'
import json, statistics, sys
for what in ("post", "get"):
    speed = {}
    for who in ("flask", "convoy"):
        lines = [json.loads(line) for line in open(f"{sys.argv[1]}/{who}.{what}")]
        assert not any(line["failures"] for line in lines), lines
        speed[who] = statistics.median(line["per_second"] for line in lines)
    print(f"{what}: convoy {speed['convoy']:.0f}/s, flask {speed['flask']:.0f}/s, ratio {speed['convoy'] / speed['flask']:.1f}")
PYTHON
