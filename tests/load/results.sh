#!/usr/bin/env bash
# results-service beside a service of Flask and sqlite3 that opens a connection for each request (flask_results.py), in
# turns on this machine: POST and GET by id, a closed loop of 32 clients, every 201 after the sync of its commit.
#
#   tests/load/results.sh [SECONDS [ROUNDS]]      default: 5 s for each of 3 rounds
#
# CLIENTS=32, and CONVOY=target/release/convoy for the whole binary in place of results-service alone. Both log as they do
# unless told otherwise: results-service a line for each prediction that it stores, gunicorn none. Needs python3 with venv;
# Flask and gunicorn go into .convoy/load-venv.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-5} rounds=${2:-3} clients=${CLIENTS:-32}
# shellcheck source=tests/load/common.sh
. tests/load/common.sh
set_up_venv "flask, gunicorn"
cargo build --quiet --release --locked -p results-service --example results_load
load=${CARGO_TARGET_DIR:-target}/release/examples/results_load

if [ -n "${CONVOY:-}" ]; then
  "$CONVOY" results-service --results-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 --db-path "$work/convoy.db" \
    --ready-file "$work/ready" 2>"$work/convoy.log" &
else
  "$load" serve "$work/convoy.db" "$work/ready" 2>"$work/convoy.log" &
fi
pids+=($!)
DB_PATH=$work/flask.db start_gunicorn flask_results:app
ours=$(wait_for convoy_address results)
theirs=$(wait_for gunicorn_address)

declare -A url=([convoy]=http://$ours [flask]=http://$theirs)
for round in $(seq "$rounds"); do
  for what in post get; do
    for who in flask convoy; do
      line=$("$load" "$what" "${url[$who]}" --clients "$clients" --seconds "$seconds" --ids "$work/$who.ids")
      echo "$line" >>"$work/$who.$what"
      echo "round $round $who $what $line" >&2
    done
  done
done
python3 - "$work" "$clients" "$rounds" "$seconds" <<'PY'
import json, statistics, sys

work, clients, rounds, seconds = sys.argv[1:]
print(f"Medians of {rounds} rounds of {seconds} s, closed loop of {clients} clients:")
print(f"{'':12}{'Flask/s':>10}{'p99 ms':>9}{'Convoy/s':>10}{'p99 ms':>9}{'ratio':>8}   ratios of the rounds")
for what, name in (("post", "POST"), ("get", "GET by id")):
    lines = {who: [json.loads(line) for line in open(f"{work}/{who}.{what}")] for who in ("flask", "convoy")}
    failed = sum(line["failures"] for of in lines.values() for line in of)
    assert not failed, f"{failed} requests failed: {lines}"
    speed = {who: statistics.median(line["per_second"] for line in of) for who, of in lines.items()}
    p99 = {who: statistics.median(line["p99_ms"] for line in of) for who, of in lines.items()}
    each = [ours["per_second"] / theirs["per_second"] for ours, theirs in zip(lines["convoy"], lines["flask"])]
    print(
        f"{name:12}{speed['flask']:10.0f}{p99['flask']:9.1f}{speed['convoy']:10.0f}{p99['convoy']:9.1f}"
        f"{speed['convoy'] / speed['flask']:8.1f}   " + " ".join(f"{ratio:.1f}" for ratio in each)
    )
PY
