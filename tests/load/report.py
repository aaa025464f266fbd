"""Reads what ghz and k6 measured: `report.py rate RUN.json OBJECTIVE_MS` prints the answers a second of one run, 0 if their p99 is
not within the objective, `report.py write FOLDER OBJECTIVE_MS KEPT_MS` writes FOLDER/index.html with plots, prints a summary, and ends
with 1 when a run does not show what it must. OBJECTIVE_MS is the objective that the server was given, KEPT_MS the longest that it
kept. Standard library only.

A run of ghz is its JSON: `details` has a timestamp (when the answer came), a latency in nanoseconds and a status for each
request. The knee is the last step, from the lowest load up, that is served whole: less than one request in a hundred is
refused, and the p99 of the answers is within the objective. A server that refuses what it cannot do in time has no bend in
its latency to look for.
"""

import datetime
import json
import pathlib
import re
import sys

import plots

REFUSED, EXPIRED = "ResourceExhausted", "DeadlineExceeded"
# The share of a step's requests from which on it is not served whole.
WHOLE = 0.01


def load(path):
    """The run, and of each request when it ended (seconds from the first one's start), its latency in ms and its status."""
    run = json.loads(pathlib.Path(path).read_text())
    ends = [
        (instant(detail["timestamp"]), detail["latency"] / 1e6, detail["status"]) for detail in run.get("details") or []
    ]
    # `date` has whole seconds only.
    start = min((end - latency / 1e3 for end, latency, _ in ends), default=0)
    return run, sorted((end - start, latency, status) for end, latency, status in ends)


def instant(text):
    """Seconds; Go writes up to nine digits and `Z` or an offset, Python 3.10 reads six digits and an offset."""
    text = re.sub(r"\.(\d{1,9})", lambda digits: "." + (digits[1] + "00000")[:6], text.replace("Z", "+00:00"))
    return datetime.datetime.fromisoformat(text).timestamp()


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def answered(requests):
    return [latency for _, latency, status in requests if status == "OK"]


def rate(run, requests):
    return len(answered(requests)) / (run["total"] / 1e9)


def capacity(run, requests, objective_ms):
    """Answers a second, where they come in time."""
    return rate(run, requests) if quantile(answered(requests), 0.99) <= objective_ms else 0


def by_second(requests):
    """(second, answers, refusals, failures), of every second."""
    last = int(max((end for end, _, _ in requests), default=-1))
    counts = {second: [0, 0, 0] for second in range(last + 1)}
    for end, _, status in requests:
        counts[int(end)][0 if status == "OK" else 1 if status == REFUSED else 2] += 1
    return [(second, *count) for second, count in counts.items()]


def steps(run, requests):
    """(requests a second, p50, p99 of what was answered, share refused) for each step of a schedule."""
    options = run["options"]
    length = options["load-step-duration"] / 1e9
    found = []
    for step in range(64):
        rps = options["load-start"] + step * options["load-step"]
        if rps > options["load-end"]:
            break
        # By when the requests came.
        own = [r for r in requests if step * length <= r[0] - r[1] / 1e3 < (step + 1) * length]
        good = answered(own)
        if own:
            found.append((rps, quantile(good, 0.5), quantile(good, 0.99), 1 - len(good) / len(own)))
    return found


def knee(found, objective_ms):
    """The rate up to which all is well."""
    last = None
    for rps, _, p99, refused in found:
        if refused >= WHOLE or not p99 <= objective_ms:
            break
        last = rps
    return last


def line(name, run, requests, objective_ms):
    good = answered(requests)
    statuses = {}
    for _, _, status in requests:
        statuses[status] = statuses.get(status, 0) + 1
    late = sum(latency > objective_ms for latency in good)
    counts = ", ".join(f"{status} {count}" for status, count in sorted(statuses.items(), key=lambda item: -item[1]))
    return (
        f"{name:28} {rate(run, requests):7.1f}/s answered   p50 {quantile(good, 0.5):6.1f}  p99 {quantile(good, 0.99):6.1f} ms"
        f"   over {objective_ms:g} ms {100 * late / max(1, len(good)):5.2f} %   {counts}"
    )


def check(name, requests, objective_ms):
    """What a run must show, as a sentence and whether it does; None for a run of which nothing is required."""
    statuses = [status for _, _, status in requests]
    if name.endswith(("-half", "-soak")):
        bad = sum(status != "OK" for status in statuses)
        return f"{bad} of {len(statuses)} failed at half the capacity", bad == 0 < len(statuses)
    if not name.endswith("-twice"):
        return None
    refused, expired = statuses.count(REFUSED), 100 * statuses.count(EXPIRED) / max(1, len(statuses))
    other = len(statuses) - statuses.count("OK") - refused - statuses.count(EXPIRED)
    p99 = quantile(answered(requests), 0.99)
    text = f"{refused} of {len(statuses)} refused at twice the capacity, {expired:.2f} % expired, {other} failed otherwise"
    return f"{text}, p99 {p99:.1f} ms", refused > 0 and other == 0 and expired < 0.1 and p99 <= objective_ms


def k6_line(path):
    metrics = json.loads(path.read_text())["metrics"]
    took, checks = metrics["http_req_duration"], metrics["checks"]
    refused = metrics.get("refused", {}).get("count", 0)
    return (
        f"{path.stem:28} {metrics['http_reqs']['rate']:7.1f}/s              p50 {took['med']:6.1f}  p95 {took['p(95)']:6.1f} ms"
        f"   checks {checks['passes']} passed, {checks['fails']} failed" + (f", {refused} refused" if refused else "")
    )


def check_kept(objective_ms, kept_ms):
    """As `check`, of the server itself: one that is too slow keeps a longer objective than it was given."""
    if kept_ms > objective_ms:
        return f"the server kept {kept_ms:g} ms, longer than the {objective_ms:g} ms that it was given: the model is too slow here", False
    return f"the server kept the {objective_ms:g} ms that it was given", True


def write(folder, objective_ms, kept_ms):
    """Whether all checks passed."""
    parts, checks = [], []
    for path in sorted((folder / "runs").glob("*.json")):
        if path.name.startswith("k6-"):
            print(text := k6_line(path))
            parts.append(plots.heading(path.stem, text))
            continue
        run, requests = load(path)
        print(text := line(path.stem, run, requests, objective_ms))
        parts.append(plots.heading(path.stem, text))
        if required := check(path.stem, requests, objective_ms):
            checks.append((path.stem, *required))
        parts.append(plots.histogram("Latency of what was answered, ms", answered(requests)))
        seconds = by_second(requests)
        curves = {name: [(s[0], s[at]) for s in seconds] for at, name in ((1, "answered"), (2, "refused"), (3, "failed"))}
        parts.append(plots.lines("Answers a second over time, s", curves))
        if run["options"].get("load-schedule") == "step":
            found = steps(run, requests)
            curves = {"p50": [(s[0], s[1]) for s in found], "p99": [(s[0], s[2]) for s in found]}
            at = knee(found, objective_ms)
            parts.append(plots.lines("Latency, ms, against load, requests a second", curves, mark=at))
            share = {"refused, %": [(s[0], 100 * s[3]) for s in found]}
            parts.append(plots.lines("Refused, %, against load", share, mark=at))
            if at:
                print(f"{'':28} served whole up to {at}/s")
    checks.append(("objective", *check_kept(objective_ms, kept_ms)))
    (folder / "index.html").write_text(plots.page("Convoy under load", parts))
    for name, text, passed in checks:
        print(f"{'passed' if passed else 'FAILED'}: {name}: {text}")
    return all(passed for _, _, passed in checks)


if __name__ == "__main__":
    command, path, *objectives = sys.argv[1:]
    if command == "rate":
        print(f"{capacity(*load(path), *map(float, objectives)):.3f}")
    else:
        sys.exit(not write(pathlib.Path(path), *map(float, objectives)))
