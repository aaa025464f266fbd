#!/usr/bin/env bash
# Load-tests Convoy with ghz (gRPC) and k6 (REST), and writes target/load/index.html and target/load/summary.txt.
#
#   make load                                       starts `convoy up --slo 100ms` of the release build on free ports
#   scripts/load.sh --target HOST                   a Convoy that runs there, on its usual ports
#   SECONDS_EACH=20 SOAK=10m scripts/load.sh        longer runs, and a soak at half the capacity
#   CONVOY_BIN=convoy scripts/load.sh               another program than the release build
#
# For each call: the capacity (closed loops of 4, 8, 16 … callers until more of them get no
# more answers within the objective), then half of it,
# a line up to it, steps up to twice of it, and twice of it, each as an open loop: requests come when they come, whatever
# became of those before. ghz and k6 are those on PATH, else built into .convoy/go/bin by Go. docs/load-testing.md shows a
# result and how to read it. Ends with 1 when a check fails: an error at half the capacity, or beyond it anything but
# refusals (DEADLINE_EXCEEDED on under 0.1 %) or answers outside the objective; or a server that kept a longer objective than
# the one that it was given.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-8} calls=${CALLS:-model-infer predict-bytes predict-base64}
out=target/load
photo=$(realpath "${PHOTO:-tests/photos/double_decker_bus.jpg}")
model=${MODEL:-vehicle-detector}
target=
while [ $# -gt 0 ]; do
  case $1 in
    --target) target=${2:?--target wants a host}; shift 2 ;;
    *) echo "load: $1 is unknown; scripts/load.sh [--target HOST]" >&2; exit 64 ;;
  esac
done
# A step of the ramp is half of it, in whole seconds.
[ "$seconds" -ge 2 ] || { echo "load: SECONDS_EACH is at least 2" >&2; exit 64; }

logs=$out
# shellcheck source=tests/load/common.sh
. tests/load/common.sh
[ -n "$target" ] || need_convoy
command -v curl >/dev/null || { echo "load: curl is needed, to read the metrics." >&2; exit 69; }
ghz=$(ghz_tool)
k6=$(k6_tool)
rm -rf "$out"
mkdir -p "$out/runs"
python3 tests/load/data.py "$photo" "$model" "$out/data"
if [ -z "$target" ]; then
  "$convoy" up --ready-file "$work/ready" --db-path "$work/predictions.db" --profile-cache none --slo "${SLO:-100ms}" --log-level warn \
    --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 \
    --feature-addr 127.0.0.1:0 --results-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 2>"$logs/convoy.log" &
  pids+=($!)
  grpc=$(wait_for convoy_address grpc)
  feature=http://$(convoy_address feature) results=http://$(convoy_address results) metrics=http://$(convoy_address metrics)
else
  grpc=$target:50051 feature=http://$target:5001 results=http://$target:5002 metrics=http://$target:8002
fi
# The objective of the newest version, in ms, that was set (`configured_`) or is kept now (nothing); empty without one.
objective() {
  curl --silent --fail --max-time 10 "$metrics/metrics" |
    awk -v "model=model=\"$model\"" -v "metric=convoy_latency_objective_${1:-}seconds{" \
      'index($0, metric) == 1 && index($0, model) { ms = $2 * 1000 } END { if (ms) print ms }'
}
objective_ms=$(objective configured_) || { echo "load: $metrics/metrics does not answer." >&2; exit 1; }
[ -n "$objective_ms" ] ||
  { echo "load: $metrics/metrics names no latency objective of $model: give the server one (--slo)." >&2; exit 1; }

# A server that finds its model too slow keeps a longer objective, and a shorter one again when it can: the longest one seen.
kept_ms=$objective_ms
note_kept() {
  local now
  now=$(objective || true)
  kept_ms=$(python3 -c "print(max($kept_ms, ${now:-0}))")
}
note_kept

# One run of ghz: NAME CONFIGURATION OPTIONS...
run() {
  local name=$1 configuration=$2
  shift 2
  echo "load: $name"
  # ghz fails when a request did; a refusal is an answer, and the report says how many there were.
  "$ghz" --config "tests/load/ghz/$configuration.json" --format json --output "$out/runs/$name.json" "$@" "$grpc" ||
    [ -s "$out/runs/$name.json" ]
  note_kept
}
# Answers a second of a run; 0 if they did not come in time.
rate() { python3 tests/load/report.py rate "$out/runs/$1.json" "$objective_ms"; }
times() { python3 -c "print(max(1, round($1 * $2)))"; }

# Closed loops with ever more callers; the run with the most answers a second stays as CALL-1-capacity, the others go.
find_capacity() {
  local call=$1 callers found
  capacity=0
  for callers in 4 8 16 32 64 128 256; do
    run "$call-0" "$call" --concurrency "$callers" --duration "${seconds}s" --duration-stop wait
    found=$(rate "$call-0")
    # Answers that more callers do not raise by a twentieth: past that only the waiting grows.
    python3 -c "import sys; sys.exit($found <= 1.05 * $capacity)" || break
    capacity=$found
    mv "$out/runs/$call-0.json" "$out/runs/$call-1-capacity.json"
  done
  rm -f "$out/runs/$call-0.json"
  [ "$capacity" != 0 ] ||
    { echo "load: four callers of $call do not get their answers within $objective_ms ms: nothing to measure." >&2; exit 1; }
}

for call in $calls; do
  run "$call-warm" "$call" --concurrency 16 --duration 2s --duration-stop wait
  rm "$out/runs/$call-warm.json"
  find_capacity "$call"
  open() { # NAME FACTOR SECONDS
    local rps
    rps=$(times "$capacity" "$2")
    run "$call-$1" "$call" --async --concurrency 256 --rps "$rps" --total "$((rps * $3))"
  }
  open 2-half 0.5 "$seconds"
  # Longer: what is allowed for one request in a thousand cannot be told of a thousand.
  open 5-twice 2 "$((3 * seconds))"
  [ "$call" != predict-base64 ] || continue
  step=$(times "$capacity" 0.25)
  run "$call-3-line" "$call-line" --load-start "$step" \
    --load-step "$(times "$capacity" "0.75 / $seconds")" --load-end "$(times "$capacity" 1)" --load-max-duration "${seconds}s" \
    --total "$(times "$capacity" "0.625 * $seconds")"
  # The configurations have rates of their own, for runs by hand; what is found here takes their place. Eight steps: a quarter of the capacity to twice of it.
  run "$call-4-steps" "$call-steps" --load-start "$step" --load-step "$step" \
    --load-end "$((8 * step))" --load-step-duration "$((seconds / 2))s" --total "$((36 * step * (seconds / 2)))"
  if [ -n "${SOAK:-}" ] && [ "$call" = model-infer ]; then
    run "$call-6-soak" "$call-soak" --rps "$(times "$capacity" 0.5)" --duration "$SOAK"
  fi
done

failed=0
for script in preprocess predict results; do
  echo "load: k6 $script"
  "$k6" run --quiet --no-usage-report --summary-export "$out/runs/k6-$script.json" -e FEATURE="$feature" -e RESULTS="$results" \
    -e PHOTO="$photo" -e MODEL="$model" -e DURATION="${seconds}s" "tests/load/k6/$script.js" >"$out/k6-$script.log" 2>&1 || {
    failed=1
    echo "load: k6 $script failed, see $out/k6-$script.log" >&2
  }
done

python3 tests/load/report.py write "$out" "$objective_ms" "$kept_ms" >"$out/summary.txt" || failed=1
cat "$out/summary.txt"
echo "load: the plots are in $out/index.html"
exit "$failed"
