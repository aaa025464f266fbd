#!/usr/bin/env bash
# Tests the images as operators use them: compose.yaml comes up healthy, the sample photo goes through /predict and over
# gRPC, each container is killed in turn, the others answer clearly and all recover, predictions outlive the containers.
#
#   make images && make compose-test        KEEP=1: leaves everything up
#
# It needs Docker with Compose v2, curl and python3, the ports of compose.yaml, and what `make setup-tests` sets up.
# Exit code 69: no engine here.
set -euo pipefail
cd "$(dirname "$0")/.."

docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 ||
  { echo "compose-test: skipped, no container engine with Compose v2 answers." >&2; exit 69; }
photo=tests/photos/double_decker_bus.jpg
user=compose-test-$$
# Volumes of its own; the containers' and the network's names and the ports are the real ones.
compose() { docker compose --project-name convoy-compose-test "$@"; }
work=$(mktemp -d)
step() { echo "compose-test: $1"; }
fail() {
  echo "compose-test: FAILED: $1" >&2
  compose logs --tail 15 >&2 || true
  exit 1
}
cleanup() {
  rm -rf "$work"
  [ -n "${KEEP:-}" ] || compose down --volumes --timeout 40 >/dev/null 2>&1 || true
}
trap cleanup EXIT

# Asks each half second until COMMAND succeeds, for two minutes: until_it WHAT COMMAND...
until_it() {
  local what=$1
  shift
  for _ in $(seq 240); do
    "$@" && return
    sleep 0.5
  done
  fail "$what"
}

# The HTTP status; the body goes to $work/body.
request() { curl --silent --output "$work/body" --write-out '%{http_code}' --max-time 30 "$@" || true; }
expect() { # WHAT STATUS PATTERN CURL-ARGUMENTS...
  local what=$1 status=$2 pattern=$3 got
  shift 3
  got=$(request "$@")
  [ "$got" = "$status" ] || fail "$what answered $got and not $status: $(cat "$work/body" 2>/dev/null)"
  grep -q -- "$pattern" "$work/body" || fail "$what answered without '$pattern': $(head -c 400 "$work/body")"
  step "  $what: $got"
}
predict() { expect "POST /predict" "$1" "$2" -F "image=@$photo" -F "user_id=$user" localhost:5001/predict; }
preprocess() {
  printf '{"image":"%s"}' "$(base64 -w0 "$photo")" >"$work/image.json"
  expect "POST /preprocess" 200 mean_brightness -H 'Content-Type: application/json' --data-binary "@$work/image.json" \
    localhost:5001/preprocess
}
stored() { expect "GET /predictions/user" "$1" "$2" "localhost:5002/predictions/user/$user"; }
grpc() {
  PYTHONPATH=$work:.convoy/python python3 tests/python/model_client.py localhost:50051 predict "$photo" >"$work/answer" 2>&1 &&
    grep -q '"class_name": "bus"' "$work/answer" || fail "Predict over gRPC: $(tail -3 "$work/answer")"
  step "  Predict over gRPC: OK"
}

PYTHONPATH=.convoy/python python3 -m grpc_tools.protoc -I proto/proto --python_out="$work" --grpc_python_out="$work" \
  proto/proto/model_serving.proto || fail "make setup-tests has not been run"

step "the configurations are valid, and differ where they should"
compose config --quiet
python3 tests/python/compose_difference.py || fail "compose.gpu.yaml changes what it should not"

step "up, and healthy"
compose up --detach --wait --wait-timeout 240 --no-build || fail "not healthy"
predict 200 '"class_name":"bus"'
preprocess
stored 200 '"class_name":"bus"'
grpc
[ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}' model-serving)" = "true 65532:65532" ] ||
  fail "model-serving can write to its root file system, or is root"

# What is left of the system while SERVICE is gone.
without() {
  step "without $1"
  docker kill "$1" >/dev/null
  case $1 in
    model-serving) predict 503 unavailable; preprocess; stored 200 '"class_name":"bus"' ;;
    results-service) predict 503 unavailable; preprocess; grpc ;;
    feature-service) stored 200 '"class_name":"bus"'; grpc ;;
  esac
  compose up --detach --wait --wait-timeout 120 --no-build >/dev/null 2>&1 || fail "$1 did not recover"
  predict 200 '"class_name":"bus"'
}
for service in model-serving results-service feature-service; do without "$service"; done

# A process that dies by itself is started again by the restart policy; only root may kill it past the engine.
if [ "$(id -u)" -eq 0 ]; then
  step "model-serving dies by itself"
  starts=$(docker inspect --format '{{.RestartCount}}' model-serving)
  kill -KILL "$(docker inspect --format '{{.State.Pid}}' model-serving)"
  started_again() {
    [ "$(docker inspect --format '{{.RestartCount}}' model-serving)" -gt "$starts" ] &&
      [ "$(docker inspect --format '{{.State.Health.Status}}' model-serving)" = healthy ]
  }
  until_it "model-serving was not started again" started_again
  predict 200 '"class_name":"bus"'
fi

step "stopped: every service ends by itself, with 0"
compose stop --timeout 40 >/dev/null 2>&1
for service in model-serving results-service feature-service; do
  code=$(docker inspect --format '{{.State.ExitCode}}' "$service")
  [ "$code" -eq 0 ] || fail "$service ended with $code"
done
compose down --timeout 40 >/dev/null 2>&1

step "new containers have the predictions of the old ones"
compose up --detach --wait --wait-timeout 240 --no-build >/dev/null 2>&1 || fail "not healthy"
stored 200 '"class_name":"bus"'
expect "DELETE /predictions/user" 200 '"status":"success"' -X DELETE "localhost:5002/predictions/user/$user"
stored 200 '"predictions":\[\]'
compose down --volumes --timeout 40 >/dev/null 2>&1

if ! docker image inspect convoy:cuda >/dev/null 2>&1; then
  step "not tried: the CUDA image, there is none (make images)"
elif command -v nvidia-smi >/dev/null; then
  step "not tried: the CUDA image without a GPU, as this host has one"
else
  step "the CUDA image on a host without a GPU"
  cuda() { docker run --rm --name convoy-cuda-test --read-only --volume "$PWD/models:/app/models:ro" "$@"; }
  code=0
  cuda --env DEVICE=cuda convoy:cuda model-serving >"$work/cuda" 2>&1 || code=$?
  [ "$code" -eq 69 ] || fail "DEVICE=cuda ended with $code: $(tail -3 "$work/cuda")"
  grep -q 'NVIDIA driver' "$work/cuda" || fail "DEVICE=cuda ended without a reason: $(tail -3 "$work/cuda")"
  step "  DEVICE=cuda: exit code 69, $(tail -1 "$work/cuda")"
  cuda --detach --env DEVICE=auto --publish 127.0.0.1:8000:8000 --publish 127.0.0.1:8002:8002 convoy:cuda model-serving >/dev/null
  # It is gone by then when all went well.
  trap 'docker kill convoy-cuda-test >/dev/null 2>&1 || true; cleanup' EXIT
  serves() { docker exec convoy-cuda-test convoy health >/dev/null 2>&1; }
  until_it "DEVICE=auto: the container is not ready" serves
  docker logs convoy-cuda-test >"$work/cuda" 2>&1
  reason=$(sed -n 's/.*"The model runs on the CPU","reason":"\([^"]*\)".*/\1/p' "$work/cuda")
  [ -n "$reason" ] || fail "DEVICE=auto: no reason in the log: $(cat "$work/cuda")"
  step "  DEVICE=auto: on the CPU, $reason"
  expect "GET /v2/models/vehicle-detector" 200 'NVIDIA driver' localhost:8000/v2/models/vehicle-detector
  expect "GET /metrics" 200 'convoy_model_execution_provider{fallback="true",.*provider="cpu".* 1$' localhost:8002/metrics
  docker stop convoy-cuda-test >/dev/null
fi
step "passed"
