# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Pieces of a compose file that other roles bring, laid over each other the way compose does it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["PUBLIC", "FragmentError", "combine", "interpolate", "merge", "plain", "published"]

# Lists of which the last one counts as a whole.
_REPLACED = ("command", "entrypoint", "test")
_INTERPOLATED = re.compile(r"\$\{(\w+)(?::?-([^${}]*))?\}")
_REFERENCE = re.compile(r"\$\{[^}]*\}")
# What the world may reach is for nginx alone.
PUBLIC = "nginx"
_LOCAL = "127.0.0.1"


class FragmentError(Exception):
    """What was given is no piece of a compose file; the text says why and what to do."""


def combine(
    fragments: Iterable[Mapping[str, Any]], release: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, Any]:
    """All fragments as one, for this release.

    A service that the release lacks is left out, unless it says what it runs: a fragment need not know which releases
    have, say, a C(worker_beat). A port without an address is published on this host only.

    Args:
        fragments: pieces in the form of a compose file; a later one wins.
        release: the services of the release.
        env: the rendered C(.env).

    Raises:
        FragmentError: one has services that are none.
    """
    found: dict[str, Any] = {}
    for one in fragments:
        found = merge(found, plain(one, "dify_compose_fragments"))
    services = {
        name: _local(name, service, env)
        for name, service in found.get("services", {}).items()
        if name in release or service.get("image") or service.get("build")
    }
    return {**found, "services": services}


def plain(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same in the one of compose's two forms that merges."""
    services = layer.get("services") or {}
    if not isinstance(services, Mapping):
        raise FragmentError(f"services must be a mapping of names to services. Correct {where}.")
    found = dict(layer)
    if "services" in layer:
        found["services"] = {str(name): _plain(str(name), service, where) for name, service in services.items()}
    return found


def _plain(name: str, service: Any, where: str) -> dict[str, Any]:
    if service is None:
        return {}
    if not isinstance(service, Mapping):
        raise FragmentError(f"The service {name} must be a mapping, as in a compose file. Correct {where}.")
    found = dict(service)
    for key in ("environment", "labels"):
        if isinstance(found.get(key), list):
            pairs = (str(one).partition("=") for one in found[key])
            found[key] = {one: value if separator else None for one, separator, value in pairs}
    if isinstance(found.get("env_file"), (str, Mapping)):
        found["env_file"] = [found["env_file"]]
    if isinstance(found.get("extra_hosts"), Mapping):
        found["extra_hosts"] = [f"{host}:{address}" for host, address in found["extra_hosts"].items()]
    if isinstance(found.get("depends_on"), list):
        found["depends_on"] = {str(one): {"condition": "service_started"} for one in found["depends_on"]}
    return found


def _local(name: str, service: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    found = dict(service)
    if name != PUBLIC and service.get("ports"):
        found["ports"] = [port if published(port, env)[0] else _bound(port) for port in service["ports"]]
    return found


def _bound(port: Any) -> Any:
    if isinstance(port, Mapping):
        return {**port, "host_ip": _LOCAL}
    text = str(port)
    return f"{_LOCAL}:{text}" if ":" in _REFERENCE.sub("", text) else f"{_LOCAL}::{text}"


def interpolate(text: str, env: Mapping[str, str]) -> str:
    return _INTERPOLATED.sub(lambda match: env.get(match[1]) or match[2] or "", text)


def published(port: Any, env: Mapping[str, str]) -> tuple[str, str, str]:
    """Address and port of the host, empty where none is given, and the port of the container."""
    if isinstance(port, Mapping):
        return str(port.get("host_ip") or ""), str(port.get("published") or ""), str(port.get("target"))
    given = ["", "", *interpolate(str(port), env).split("/", 1)[0].rsplit(":", 2)]
    return given[-3], given[-2], given[-1]


def merge(base: Any, extra: Any, key: str = "") -> Any:
    """C(extra) laid over C(base) the way compose lays one file over another.

    Mappings merge and lists grow, but for commands, and for two mounts of a service in one place.
    """
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        merged = dict(base)
        for name, value in extra.items():
            merged[name] = merge(merged[name], value, str(name)) if name in merged else value
        return merged
    if isinstance(base, list) and isinstance(extra, list) and key not in _REPLACED:
        if key == "volumes":
            taken = {_target(one) for one in extra}
            base = [one for one in base if _target(one) not in taken]
        return base + [item for item in extra if item not in base]
    return extra


def _target(volume: Any) -> str:
    if isinstance(volume, Mapping):
        return str(volume.get("target", "")).rstrip("/")
    parts = _REFERENCE.sub("", str(volume)).split(":")
    return parts[min(1, len(parts) - 1)].rstrip("/")
