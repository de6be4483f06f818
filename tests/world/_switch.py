# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches of the stand-ins, and of what the upstream serves: small JSON files, read at start and at every request."""

from __future__ import annotations

import json
import shlex
from typing import Any

from _engine import docker, running
from _settings import UPSTREAM, WORLD, WorldError, node_container

FILE = ".standin.json"
# On a volume, so that a fault can be set before the service has ever started.
VOLUMES = {
    "api": "app/storage",
    "worker": "app/storage",
    "worker_beat": "app/storage",
    "plugin_daemon": "plugin_daemon",
    "sandbox": "sandbox/dependencies",
}
# Files of a node itself: what its Ollama is told (standins/ollama.py) and which GPU it has (standins/gpu.py).
NODE = {"ollama": "/etc/llmops-world/ollama.json", "gpu": "/etc/llmops-world/gpu.json"}
# What a node meets at the upstream, where every node has a file of its own (images/upstream: shelves.py, traceloop.py).
SERVED = {name: f"/srv/switches/{{node}}.{name}.json" for name in ("marketplace", "index", "traceloop")}
# These have no volume; their file lives in the container.
INSIDE = {"web": "/standin.json", "agent_backend": "/standin.json", "local_sandbox": "/standin.json"}


def switch(node: str, service: str, settings: list[str], home: str = "/opt/dify") -> dict[str, Any]:
    """Changes what a stand-in is told; `key=` removes a key, no setting at all only shows the file."""
    container = node_container(node)
    if not running(container):
        raise WorldError(f"{node} is not running; world.py status shows what is")
    if service in VOLUMES or service in NODE:
        path = NODE.get(service) or f"{home}/volumes/{VOLUMES[service]}/{FILE}"
        prefix: tuple[str, ...] = ("exec", "-i", container)
    elif service in SERVED:
        path = SERVED[service].format(node=node)
        prefix = ("exec", "-i", UPSTREAM)
    elif service in INSIDE:
        path = INSIDE[service]
        prefix = ("exec", "-i", container, "docker", "exec", "-i", _inner(container, service))
    else:
        known = ", ".join([*NODE, *VOLUMES, *INSIDE, *SERVED])
        raise WorldError(f"No stand-in is called {service}; there are {known}")
    told = _read(prefix, path)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise WorldError(f"{setting!r} is not key=value")
        told.pop(key, None)
        if value:
            told[key] = _value(value)
    if settings:
        # Renamed into place: a request may read it at this very moment.
        script = f"mkdir -p $(dirname {shlex.quote(path)}) && cat >{path}.new && mv {path}.new {path}"
        docker(*prefix, "sh", "-c", script, stdin=(json.dumps(told) + "\n").encode())
        if service == "gpu":
            docker(*prefix, "python3", "-", stdin=(WORLD / "standins" / "gpu.py").read_bytes())
    return told


def _read(prefix: tuple[str, ...], path: str) -> dict[str, Any]:
    text = docker(*prefix, "sh", "-c", f"cat {path} 2>/dev/null || true").strip()
    return json.loads(text) if text else {}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _inner(container: str, service: str) -> str:
    label = f"label=com.docker.compose.service={service}"
    found = docker("exec", container, "docker", "ps", "--filter", label, "--format", "{{.Names}}").split()
    if not found:
        raise WorldError(f"No container of the service {service} runs on {container}")
    return found[0]
