# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What stands in the way of seeing model calls, as sentences, and an operator's own monitoring plugins. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._traceloop_collector import HEADER, SECTIONS, texts
from ansible_collections.llmops.stack.plugins.module_utils._traceloop_target import PHOENIX

__all__ = ["own_plugins", "refusals"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What else would have two masters.
_DECIDED_COLLECTOR = re.compile("GOMEMLIMIT|" + HEADER.format("(TRACES|METRICS)", "[0-9]+"))
_DECIDED = {
    "PYTHONPATH": "",
    "TRACELOOP_API_KEY": "traceloop_api_key",
    "TRACELOOP_BASE_URL": "traceloop_base_url",
    "TRACELOOP_HEADERS": "traceloop_headers",
    "TRACELOOP_METRICS_ENABLED": "traceloop_metrics",
    "TRACELOOP_METRICS_ENDPOINT": "traceloop_metrics_url",
    "TRACELOOP_METRICS_HEADERS": "traceloop_metrics_headers",
    "TRACELOOP_TRACE_CONTENT": "traceloop_trace_content",
    "LLMOPS_TRACELOOP_CONTENT_LIMIT": "traceloop_content_limit",
}


def refusals(
    given: Mapping[str, Any], facts: Mapping[str, Any], where: Mapping[str, Any], release: Mapping[str, Any]
) -> list[str]:
    """In the order in which an operator should read them.

    Args:
        given: the variables of the role, without C(traceloop_) before their names.
        facts: C(llmops_stack), or nothing.
        where: what C(target) returned.
        release: what is known of the release of Dify.
    """
    said = [*_play(given), *_home(given), *_collector(given), *_direct(given, release), *_numbers(given)]
    for name in ("plugin_env", "collector_env"):
        said += _environment(name, texts(given[name]))
    if where["own"]:
        said += [*_bind(given), *_port(given, facts, where["own"])]
    return said


def _play(given: Mapping[str, Any]) -> list[str]:
    if given["dify_version"]:
        return []
    return [
        "The role llmops.stack.traceloop adds to what the role llmops.stack.dify starts, and that one is not in this "
        "play. Have both in it, as site.yml does."
    ]


def _home(given: Mapping[str, Any]) -> list[str]:
    home = str(given["home"])
    if re.fullmatch(r"(/[A-Za-z0-9._+@-]+){2,}", home) and "/.." not in home:
        return []
    return [
        f"traceloop_home is {home}. It is written into a compose file, so it has to be an absolute path of two "
        "folders or more, of letters, digits and ._+@- only."
    ]


def _collector(given: Mapping[str, Any]) -> list[str]:
    said = []
    if given["dify_otel"] and not given["collector"]:
        said.append(
            "traceloop_dify_otel needs the collector, which takes what users and models say out of Dify's own spans. "
            "Set traceloop_collector: true."
        )
    config = given["collector_config"] or {}
    unknown = [str(name) for name in config if name not in SECTIONS]
    if unknown:
        said.append(
            f"traceloop_collector_config has {', '.join(unknown)} at its top, and the collector reads only "
            f"{', '.join(SECTIONS)} there."
        )
    odd = [name for name in SECTIONS if not isinstance(config.get(name, {}), Mapping)]
    if odd:
        said.append(f"traceloop_collector_config: {', '.join(odd)} must be a mapping, as in the collector's own file.")
    return said


def _direct(given: Mapping[str, Any], release: Mapping[str, Any]) -> list[str]:
    """Without OpenTelemetry in the image the runtime sends JSON, to which Phoenix answers 415."""
    if given["collector"] or given["backend"] != PHOENIX or release.get("own_otel", True):
        return []
    return [
        f"traceloop_collector is false, and Dify {given['dify_version']}, older than 1.3.0, cannot send by itself what "
        "Arize Phoenix takes. Set traceloop_collector: true."
    ]


def _numbers(given: Mapping[str, Any]) -> list[str]:
    wrong = [f"traceloop_{name}" for name in ("queue_mb", "content_limit", "retention_days") if int(given[name]) < 1]
    return [f"{', '.join(wrong)} must be at least 1."] if wrong else []


def _environment(name: str, env: Mapping[str, str]) -> list[str]:
    """No value is quoted: there may be keys among them."""
    said = []
    odd = [key for key in env if not _NAME.fullmatch(key)]
    if odd:
        said.append(f"traceloop_{name} holds {', '.join(map(repr, odd))}, which is no name of an environment variable.")
    broken = [key for key, value in env.items() if re.search(r"[\x00-\x1f\x7f]", value)]
    if broken:
        said.append(f"traceloop_{name}: the value of {', '.join(broken)} has a line end or a control character in it.")
    for key in env if name == "plugin_env" else ():
        if key in _DECIDED:
            instead = f"Set {_DECIDED[key]} instead." if _DECIDED[key] else "Take it out: the role needs it."
            said.append(f"traceloop_plugin_env holds {key}. {instead}")
    for key in env if name == "collector_env" else ():
        if _DECIDED_COLLECTOR.fullmatch(key):
            said.append(f"traceloop_collector_env holds {key}, which the role sets itself. Choose another name.")
    return said


def _bind(given: Mapping[str, Any]) -> list[str]:
    address = str(given["bind_address"])
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return [f"traceloop_bind_address is {address or 'empty'}, and has to be an IP address of the host, or 0.0.0.0."]
    return []


def _port(given: Mapping[str, Any], facts: Mapping[str, Any], own: str) -> list[str]:
    variable = f"traceloop_{own}_port"
    port = given[f"{own}_port"]
    owner = (facts.get("ports") or {}).get(str(port))
    ours = {one["name"] for one in (facts.get("dify") or {}).get("containers", []) if one.get("service") == own}
    if not owner or owner.get("container") in ours:
        return []
    process = f"{owner.get('process') or 'a process'} (pid {owner.get('pid') or 'unknown'})"
    who = f"the container {owner['container']}" if owner.get("container") else process
    return [f"Port {port} is taken by {who}. Stop it, or set {variable} to another one."]


def own_plugins(
    given: Iterable[tuple[str, Mapping[str, str]]],
    read_manifest: Callable[[Mapping[str, str]], Mapping[str, Any]],
) -> dict[str, Any]:
    """C(files) of the operator's plugins below the names that they give themselves, C(names), C(refusals)."""
    found: dict[str, Any] = {"files": {}, "names": [], "refusals": []}
    taken = {"traceloop": "the plugin that this role brings"}
    for folder, files in given:
        try:
            manifest = read_manifest(files)
        except ValueError as exc:
            found["refusals"].append(
                f"traceloop_plugins: {folder} is no monitoring plugin: {exc}. A plugin is a folder with a plugin.json."
            )
            continue
        name = str(manifest["name"])
        known = taken.get(name.replace("-", "_"))
        if known:
            found["refusals"].append(
                f"traceloop_plugins: {folder} calls itself {name}, and so does {known}. Rename one."
            )
            continue
        taken[name.replace("-", "_")] = str(folder)
        found["names"].append(f"{name} {manifest['version']}")
        found["files"].update({f"{name}/{path}": text for path, text in files.items()})
    return found
