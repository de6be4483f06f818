# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who fetched what from the upstream, and how many bytes of it, out of the logs of its nginx and its registry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from _engine import docker, inspect
from _settings import NETWORK, UPSTREAM, WorldError, node_container

# nginx writes the moment first, in ISO 8601; the registry writes Apache's combined log.
_NGINX = re.compile(
    r'^(?P<moment>\S+) (?P<client>\S+) "(?P<method>\S+) (?P<path>\S+)[^"]*" (?P<status>\d+) (?P<bytes>\d+)$'
)
_REGISTRY = re.compile(
    r"^(?P<client>\S+) \S+ \S+ \[(?P<moment>[^]]+)\]"
    r' "(?P<method>\S+) (?P<path>\S+)[^"]*" (?P<status>\d+) (?P<bytes>\d+)'
)
_FORM = "%d/%b/%Y:%H:%M:%S %z"


class Request(NamedTuple):
    moment: float
    client: str  # an address
    method: str
    path: str
    status: int
    bytes: int


def parsed(line: str) -> Request | None:
    """A line of the log; None for one that tells of no request."""
    found = _NGINX.match(line)
    if found:
        moment = datetime.fromisoformat(found["moment"])
    else:
        found = _REGISTRY.match(line)
        if not found:
            return None
        moment = datetime.strptime(found["moment"], _FORM)
    numbers = int(found["status"]), int(found["bytes"])
    return Request(moment.timestamp(), found["client"], found["method"], found["path"], *numbers)


def asked(since: float = 0.0, until: float = float("inf")) -> list[Request]:
    """What the upstream was asked between two moments; its logs know whole seconds, and begin with its container."""
    made = docker("inspect", "--format", "{{.Created}}", UPSTREAM).strip()
    if since and datetime.fromisoformat(f"{made[:19]}+00:00").timestamp() > since:
        raise WorldError(f"{UPSTREAM} was made anew at {made}, and what it was asked before is not known any more")
    lines = docker("logs", f"--since={int(since)}", UPSTREAM).splitlines()
    found = (parsed(line) for line in lines)
    return [one for one in found if one and int(since) <= one.moment <= until]


def by_node(requests: Iterable[Request], nodes: Iterable[str]) -> dict[str, list[Request]]:
    """Those of each of these nodes."""
    requests = list(requests)
    return {node: [one for one in requests if one.client == address(node)] for node in nodes}


def bytes_of(requests: Iterable[Request]) -> int:
    return sum(one.bytes for one in requests)


def address(node: str) -> str:
    found = inspect("container", node_container(node)) or {"NetworkSettings": {"Networks": {}}}
    networks = found["NetworkSettings"]["Networks"]
    if NETWORK not in networks:
        raise WorldError(f"{node} is not in the network of the world; world.py status shows what is")
    return str(networks[NETWORK]["IPAddress"])
