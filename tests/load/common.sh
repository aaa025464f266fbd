# What the scripts of this folder share; each sources it with `. tests/load/common.sh` from the repository's root.
#
# `work` is a folder and `pids` the processes that end with the script; logs are in `logs`. The services beside which Convoy
# is measured run under gunicorn, from .convoy/load-venv.
# shellcheck shell=bash

venv=.convoy/load-venv
work=$(mktemp -d)
logs=${logs:-$work}
# The program to measure.
convoy=${CONVOY_BIN:-${CARGO_TARGET_DIR:-target}/release/convoy}
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait || true
  rm -rf "$work"
}
trap finish EXIT

# Ends the script unless there is a program to measure.
need_convoy() {
  [ -x "$convoy" ] || { echo "There is no $convoy: run make build, or set CONVOY_BIN." >&2; exit 69; }
}

# Installs what the other services need, unless all of the MODULES can be imported: set_up_venv MODULES
set_up_venv() {
  if ! "$venv/bin/python" -c "import $1" 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement tests/load/requirements.txt
  fi
}

# Where a tool in Go is: on PATH, else it is built into .convoy/go: go_tool NAME MODULE VERSION
go_tool() {
  local built=$PWD/.convoy/go/$3
  command -v "$1" 2>/dev/null && return
  if [ ! -x "$built/$1" ]; then
    command -v go >/dev/null || { echo "$1 is not on PATH, and neither is Go, which would build it." >&2; exit 69; }
    echo "Building $2@$3" >&2
    GOBIN=$built go install "$2@$3" >&2 || exit 69
  fi
  echo "$built/$1"
}
ghz_tool() { go_tool ghz github.com/bojand/ghz/cmd/ghz v0.121.0; }
k6_tool() { go_tool k6 go.k6.io/k6 v1.4.0; }

# Starts APP (module:name of this folder) on a free port: start_gunicorn APP
start_gunicorn() {
  "$venv/bin/python" -m gunicorn --chdir tests/load --workers 2 --bind 127.0.0.1:0 --log-level info "$1" 2>"$logs/gunicorn.log" &
  pids+=($!)
}

# Where gunicorn listens, HOST:PORT; empty while it does not.
gunicorn_address() {
  grep -oE '127\.0\.0\.1:[0-9]+' "$logs/gunicorn.log" 2>/dev/null | head -1 || true
}

# Where a service of Convoy listens, by its name in the ready file ($work/ready unless another is given); empty while it is
# not ready: convoy_address NAME [FILE]
convoy_address() {
  cat "${2:-$work/ready}" 2>/dev/null | tr -d ' \n' | grep -oE "\"$1\":\"[^\"]+" | cut -d'"' -f4 || true
}

# Prints what COMMAND prints once that is not empty; ends the script with the logs if it stays empty for two minutes (a GPU is
# warmed with every batch size), or when the process that was started last has ended.
wait_for() {
  local found
  for _ in $(seq 1200); do
    found=$("$@")
    [ -z "$found" ] || { echo "$found"; return; }
    [ ${#pids[@]} -eq 0 ] || kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "The services did not start ($*):" >&2
  tail -n 20 "$logs"/*.log >&2
  return 1
}
