"""Checks that every metric that the alerts, the dashboard and the documents name is one that a service has."""

import json
import pathlib
import re
import sys

NAME = re.compile(r"\b(?:convoy|nv)_[a-z0-9_]*[a-z0-9]\b")
sources = [path for root in ("server/src", "services", "preprocess-wasm/host/src") for path in pathlib.Path(root).rglob("*.rs")]
known = {name for path in sources for name in re.findall(r'"((?:convoy|nv)_[a-z0-9_]+)"', path.read_text())}
# What a histogram has.
known |= {name + suffix for name in known for suffix in ("_bucket", "_sum", "_count")}

dashboard = json.loads(pathlib.Path("deploy/grafana/dashboards/convoy.json").read_text())
asked = {"deploy/grafana/dashboards/convoy.json": " ".join(
    target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
)}
for path in ("deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"):
    asked[path] = pathlib.Path(path).read_text()
for path in ("docs/operations.md", "docs/results-service.md", "docs/api.md", "docs/gpu.md"):
    # In backticks, as a metric is written: `name` or `name{labels}`, alone or in PromQL.
    asked[path] = " ".join(re.findall(r"`[^`]*`", pathlib.Path(path).read_text()))

# Of names that a document writes together, as nv_gpu_memory_{used,total}_bytes, none is whole.
together = re.compile(r"\b(?:convoy|nv)_[a-z0-9_]*[*{][a-z_,]+\}")
missing = [
    f"{path}: there is no metric {name}"
    for path, text in asked.items()
    for name in sorted(set(NAME.findall(together.sub("", text))))
    if name not in known
]
if len(known) < 40 or not all(NAME.search(text) for text in asked.values()):
    missing.append("the metrics or their users were not found where they were")
sys.exit("\n".join(missing) or 0)
