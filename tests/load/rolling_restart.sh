#!/usr/bin/env bash
# A rolling restart under ghz: two model-serving processes behind one name, ghz balances over both (round_robin), each is
# stopped with SIGTERM in turn and started again. No request may fail.
#
#   tests/load/rolling_restart.sh [REQUESTS_A_SECOND]     default: 20
#
# Needs target/release/convoy (make build, or CONVOY_BIN=) and ghz or Go. The name is resolved by a DNS server of this script's
# own, tests/load/two_addresses.py: both processes listen on the same port, one on 127.0.0.1 and one on 127.0.0.2.
set -euo pipefail
cd "$(dirname "$0")/../.."

rate=${1:-20}
# shellcheck source=tests/load/common.sh
. tests/load/common.sh
need_convoy
ghz=$(ghz_tool)
mkdir -p target/load
python3 tests/load/data.py tests/photos/double_decker_bus.jpg vehicle-detector target/load/data

declare -A process
serve() { # ADDRESS
  rm -f "$work/$1"
  "$convoy" model-serving --grpc-addr "$1" --http-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 --shutdown-delay 5s \
    --profile-cache "$work/profiles" --log-level warn --ready-file "$work/$1" 2>>"$work/convoy.log" &
  process[$1]=$!
  pids+=($!)
}
ready() { convoy_address grpc "$work/$1"; }

serve 127.0.0.1:0
port=$(wait_for ready 127.0.0.1:0)
port=${port##*:}
kill "${pids[@]}" && wait "${pids[@]}"
pids=()
addresses=("127.0.0.1:$port" "127.0.0.2:$port")
for address in "${addresses[@]}"; do
  serve "$address"
  wait_for ready "$address" >/dev/null
done
python3 tests/load/two_addresses.py 127.0.0.1 127.0.0.2 >"$work/dns" &
pids+=($!)
dns=$(wait_for cat "$work/dns")

"$ghz" --config tests/load/ghz/predict-bytes.json --format json --output "$work/run.json" --lb-strategy round_robin \
  --authority convoy --async --concurrency 64 --rps "$rate" --duration 10m --duration-stop wait "dns://$dns/convoy.test:$port" &
load=$!
pids+=($load)
sleep 3
for address in "${addresses[@]}"; do
  echo "rolling restart: SIGTERM to $address, $(date --utc +%T.%3N)"
  kill -TERM "${process[$address]}"
  wait "${process[$address]}"
  serve "$address"
  wait_for ready "$address" >/dev/null
  sleep 3
done
kill -INT "$load"
wait "$load" || true
python3 - "$work/run.json" <<'PY'
import collections, json, sys

run = json.load(open(sys.argv[1]))
found = collections.Counter(detail["status"] for detail in run["details"])
print(f"rolling restart: {run['count']} requests in {run['total'] / 1e9:.1f} s: {dict(found)}")
for detail in run["details"]:
    if detail["status"] != "OK":
        print(f"  {detail['timestamp']} after {detail['latency'] / 1e6:.1f} ms: {detail['error']}")
sys.exit(set(found) != {"OK"})
PY
