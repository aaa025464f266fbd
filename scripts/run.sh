#!/usr/bin/env bash
# Starts all three services, waits until they are ready, sends the sample photo through POST /predict and prints
# what was found; then serves until Ctrl-C. ONCE=1: ends after the table. `make run` builds first and calls this.
#
# Every flag of `convoy up` works through its environment variable: `FEATURE_ADDR=127.0.0.1:6001 make run`. The
# services' log goes to RUN_LOG (.convoy/run.log), as text unless LOG_FORMAT says json.
set -euo pipefail
cd "$(dirname "$0")/.."

convoy=${CONVOY_BIN:-target/release/convoy}
photo=tests/photos/double_decker_bus.jpg
[ -x "$convoy" ] || { echo "run: $convoy is not there; 'make build' makes it." >&2; exit 1; }

work=$(mktemp -d)
ready=$work/ready.json
log=${RUN_LOG:-.convoy/run.log}
mkdir -p "$(dirname "$log")"
# Whoever holds the log may write it; the lock ends with the services.
exec 9>>"$log"
flock --nonblock 9 || { echo "run: another one is writing $log; set RUN_LOG (and the addresses) for a second." >&2; exit 1; }
: >"$log"
pid=
stop() {
  trap - EXIT INT TERM HUP
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
    kill -TERM "$pid"
    wait "$pid" || true
  fi
  rm -rf "$work"
}
trap stop EXIT
# Ctrl-C is how one ends it: done, and no failure.
trap 'echo; stop; echo "run: stopped"; exit 0' INT
trap 'stop; exit 143' TERM
trap 'stop; exit 129' HUP

echo "run: starting the three services (log: $log)"
# In a process group of its own: Ctrl-C reaches this script, which then stops the services in order.
LOG_FORMAT=${LOG_FORMAT:-text} setsid "$convoy" up --ready-file "$ready" >>"$log" 2>&1 &
pid=$!
# convoy has ended by itself, which is a failure whatever it says.
ended() {
  local code=0
  wait "$pid" || code=$?
  pid=
  echo "run: convoy ended $1 (exit code $code):" >&2
  tail -20 "$log" >&2
  [ "$code" -ne 0 ] || code=1
  exit "$code"
}
# The end of the wait is the services' own: they become ready or they exit.
until [ -s "$ready" ]; do
  kill -0 "$pid" 2>/dev/null || ended "before it was ready"
  sleep 0.1
done

address() { tr -d '\n' <"$ready" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }
"$convoy" detect --server "http://$(address feature)" "$photo"
[ -z "${ONCE:-}" ] || exit 0
cat <<END

Convoy is serving:
  REST     http://$(address feature)   POST /predict, POST /preprocess
  gRPC     $(address grpc)          model_serving.ModelServing, inference.GRPCInferenceService
  KServe   http://$(address http)   GET /v2
  metrics  http://$(address metrics)/metrics
  results  http://$(address results)   GET /predictions/{request_id}
  operator http://$(address admin)   GET /stats

Try:  $convoy detect --server http://$(address feature) --out annotated $photo
END

echo "Ctrl-C stops it."
ended "by itself"
