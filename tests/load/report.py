"""Reads what ghz and k6 measured: `report.py rate RUN.json` prints the answers a second of one run, `report.py write FOLDER`
writes FOLDER/index.html with plots and prints a summary. Standard library only.

A run of ghz is its JSON: `details` has a timestamp (when the answer came), a latency in nanoseconds and a status for each
request. The knee of latency against load is the step that is farthest from the line between the first and the last one
(Satopää et al., Finding a "Kneedle" in a Haystack, 2011), over the steps' p99.
"""

import datetime
import json
import pathlib
import sys

import plots

OBJECTIVE_MS = 100


def load(path):
    run = json.loads(pathlib.Path(path).read_text())
    start = instant(run["date"]) - run["total"] / 1e9
    requests = []
    for detail in run.get("details") or []:
        end = instant(detail["timestamp"])
        requests.append((end - start, detail["latency"] / 1e6, detail["status"]))
    return run, sorted(requests)


def instant(text):
    # Nanoseconds, of which Python knows six digits.
    head, _, rest = text.partition(".")
    digits = rest.rstrip("Z").split("+")[0]
    seconds = datetime.datetime.fromisoformat(head.rstrip("Z") + "+00:00").timestamp()
    return seconds + float("0." + (digits or "0"))


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def answered(requests):
    return [latency for _, latency, status in requests if status == "OK"]


def rate(run, requests):
    return len(answered(requests)) / (run["total"] / 1e9)


def by_second(requests):
    """Answers and refusals in each second."""
    seconds = {}
    for end, _, status in requests:
        good, bad = seconds.get(int(end), (0, 0))
        seconds[int(end)] = (good + 1, bad) if status == "OK" else (good, bad + 1)
    return sorted((second, *counts) for second, counts in seconds.items())


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


def knee(found):
    """The rate after which latency rises."""
    points = [(rps, p99) for rps, _, p99, _ in found if p99 == p99]
    if len(points) < 3:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    spread = (x1 - x0) or 1, (max(y for _, y in points) - y0) or 1
    below = lambda x, y: (x - x0) / spread[0] * (y1 - y0) / spread[1] - (y - y0) / spread[1]
    best = max(points, key=lambda point: below(*point))
    return best[0] if below(*best) > 0 else None


def line(name, run, requests):
    good = answered(requests)
    statuses = {}
    for _, _, status in requests:
        statuses[status] = statuses.get(status, 0) + 1
    late = sum(latency > OBJECTIVE_MS for latency in good)
    counts = ", ".join(f"{status} {count}" for status, count in sorted(statuses.items(), key=lambda item: -item[1]))
    return (
        f"{name:28} {rate(run, requests):7.1f}/s answered   p50 {quantile(good, 0.5):6.1f}  p99 {quantile(good, 0.99):6.1f} ms"
        f"   over {OBJECTIVE_MS} ms {100 * late / max(1, len(good)):5.2f} %   {counts}"
    )


def check(name, requests):
    """What a run must show, as a sentence and whether it does; None for a run of which nothing is required."""
    statuses = [status for _, _, status in requests]
    if name.endswith("-half"):
        bad = sum(status != "OK" for status in statuses)
        return f"at half the capacity: {bad} of {len(statuses)} failed", bad == 0
    if name.endswith("-twice"):
        other = sum(status not in ("OK", "ResourceExhausted", "DeadlineExceeded") for status in statuses)
        expired = 100 * statuses.count("DeadlineExceeded") / max(1, len(statuses))
        p99 = quantile(answered(requests), 0.99)
        text = f"at twice the capacity: {other} failed otherwise than refused, {expired:.2f} % expired, p99 {p99:.1f} ms"
        return text, other == 0 and expired < 0.1 and p99 <= OBJECTIVE_MS
    return None


def k6_line(path):
    metrics = json.loads(path.read_text())["metrics"]
    took, checks = metrics["http_req_duration"], metrics["checks"]
    refused = metrics.get("refused", {}).get("count", 0)
    return (
        f"{path.stem:28} {metrics['http_reqs']['rate']:7.1f}/s              p50 {took['med']:6.1f}  p95 {took['p(95)']:6.1f} ms"
        f"   checks {checks['passes']} passed, {checks['fails']} failed" + (f", {refused} refused" if refused else "")
    )


def write(folder):
    """Whether all checks passed."""
    parts, checks = [], []
    for path in sorted((folder / "runs").glob("*.json")):
        if path.name.startswith("k6-"):
            print(text := k6_line(path))
            parts.append(plots.heading(path.stem, text))
            continue
        run, requests = load(path)
        print(text := line(path.stem, run, requests))
        parts.append(plots.heading(path.stem, text))
        if required := check(path.stem, requests):
            checks.append((path.stem, *required))
        good = answered(requests)
        parts.append(plots.histogram("Latency of what was answered, ms", good))
        seconds = by_second(requests)
        over_time = {"answered": [(s, good) for s, good, _ in seconds], "refused": [(s, bad) for s, _, bad in seconds]}
        parts.append(plots.lines("Answers a second over time, s", over_time))
        if run["options"].get("load-schedule") == "step":
            found = steps(run, requests)
            curves = {"p50": [(s[0], s[1]) for s in found], "p99": [(s[0], s[2]) for s in found]}
            at = knee(found)
            parts.append(plots.lines("Latency, ms, against load, requests a second", curves, mark=at))
            share = {"refused, %": [(s[0], 100 * s[3]) for s in found]}
            parts.append(plots.lines("Refused, %, against load", share))
            if at:
                print(f"{'':28} the knee is at {at}/s")
    (folder / "index.html").write_text(plots.page("Convoy under load", parts))
    for name, text, passed in checks:
        print(f"{'passed' if passed else 'FAILED'}: {name} {text}")
    return all(passed for _, _, passed in checks)


if __name__ == "__main__":
    command, path = sys.argv[1:]
    if command == "rate":
        print(f"{rate(*load(path)):.3f}")
    else:
        sys.exit(not write(pathlib.Path(path)))
