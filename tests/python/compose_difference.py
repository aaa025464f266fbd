"""Checks that compose.gpu.yaml changes model-serving's image, device and environment, and nothing else."""

import json
import os
import subprocess
import sys


def config(*files):
    arguments = [argument for file in files for argument in ("--file", file)]
    command = ["docker", "compose", *arguments, "--profile", "*", "config", "--format", "json"]
    # Without what the shell would change.
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DOCKER_CONFIG")}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=plain).stdout)


def differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def built_from(dockerfile):
    arguments = {"WASM_TOOLCHAIN": "", "VERSION": "dev", "REVISION": "unknown"}
    return {"context": os.getcwd(), "dockerfile": dockerfile, "args": arguments}


EXPECTED = {
    "services.model-serving.build": (None, built_from("Dockerfile.cuda")),
    "services.model-serving.image": ("convoy:cpu", "convoy:cuda"),
    "services.model-serving.environment.DEVICE": ("cpu", "cuda"),
    "services.model-serving.environment.CUDA_CACHE_PATH": (None, "/app/data/cuda"),
    "services.model-serving.deploy.resources.reservations": (
        None,
        {"devices": [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}]},
    ),
}

base = config("compose.yaml")
found = {path: (old, new) for path, old, new in differences(base, config("compose.yaml", "compose.gpu.yaml"))}
if found != EXPECTED:
    sys.exit(f"expected {EXPECTED}\nfound    {found}")

services = base["services"]
built = {name: service["build"] for name, service in services.items() if "build" in service}
if built != {"results-service": built_from("Dockerfile.cpu")}:
    sys.exit(f"the image is to be built once, for results-service: {built}")
published = {
    service: sorted(int(port["published"]) for port in services[service]["ports"])
    for service in ("model-serving", "feature-service", "results-service")
}
wanted = {"model-serving": [8000, 8002, 50051], "feature-service": [5001], "results-service": [5002]}
if published != wanted:
    sys.exit(f"the ports are {published}, and must be {wanted}")
for name, service in services.items():
    if service["container_name"] != name or "ia-network" not in service["networks"]:
        sys.exit(f"{name} is called {service['container_name']} on {list(service['networks'])}")
