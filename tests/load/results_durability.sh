#!/usr/bin/env bash
# Shows that results-service answers 201 only after the sync of the commit: runs it under strace with a closed loop of 32
# clients, and looks for each 201 in the trace whether its row was written to the write-ahead log before a sync of that log
# which was over before the answer was sent.
#
#   tests/load/results_durability.sh [SECONDS]      default: 2 s; skipped where strace is not installed or may not trace
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-2}
if ! strace -f -o /dev/null true 2>/dev/null; then
  echo "SKIPPED: strace is not installed, or may not trace here."
  exit 0
fi
cargo build --quiet --release --locked -p results-service --example results_load
load=${CARGO_TARGET_DIR:-target}/release/examples/results_load

# shellcheck source=tests/load/common.sh
. tests/load/common.sh

# shellcheck disable=SC2016
strace -f -y -s 8192 -e trace=fsync,fdatasync,write,pwrite64,writev,sendto -e signal=none -o "$work/trace" \
  bash -c 'echo $$ >"$0/pid"; exec "$1" serve "$0/predictions.db" "$0/ready"' "$work" "$load" 2>"$work/convoy.log" &
traced() { cat "$work/pid" 2>/dev/null || true; }
pids+=("$(wait_for traced)")
address=$(wait_for convoy_address results)
"$load" post "http://$address" --seconds "$seconds" --ids "$work/ids"
kill "${pids[@]}"
wait || true
pids=()

python3 - "$work" <<'PY'
import re, sys

LOG = "predictions.db-wal>"
wanted = set(open(f"{sys.argv[1]}/ids").read().split())
written, durable, answered = {}, set(), set()
# Of each thread whose sync of the log is under way: the rows that were in the log before.
syncing, syncs, early = {}, 0, []
for line in open(f"{sys.argv[1]}/trace", errors="replace"):
    thread, call = line.split(maxsplit=1)
    name = re.match(r"(?:<\.\.\. )?(\w+)", call)[1]
    if name in ("fsync", "fdatasync"):
        if not call.startswith("<...") and LOG in call:
            syncing[thread] = set(written)
        if "unfinished" not in call and thread in syncing:
            assert call.rstrip().endswith("= 0"), line
            durable |= syncing.pop(thread)
            syncs += 1
    elif call.startswith("<..."):
        pass  # Its bytes stood where it began.
    elif LOG in call:
        for row in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", call):
            written.setdefault(row, line)
    elif "HTTP/1.1 201" in call:
        row = re.search(r'request_id\\":\\"([0-9a-f-]{36})', call)[1]
        answered.add(row)
        if row not in durable:
            early.append(row)
assert wanted and wanted <= answered, (len(wanted), len(answered))
print(f"{len(answered)} answers of 201, {syncs} syncs of the log; answers before their sync: {len(early)}")
sys.exit(bool(early))
PY
