# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where a host with Ollama differs from what role ollama wants of it, decided once per run.

Pure: files are compared by what they should say, which the templates of the role have made from the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _guard
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_plan_before as before
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_plan_metrics as metrics
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_plan_unit as unit
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as places
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import release_info

__all__ = ["changes"]

_PARTS = (
    "install", "note", "firewall", "firewall_left", "openings", "configure", "service", "container", "prune", "metrics",
    "metrics_left",
)  # fmt: skip
_OF_SERVICES = (
    "release_ready", "zstd_needed", "container_left", "unit", "dropin", "secrets", "configure", "switch", "restart",
    "service",
)  # fmt: skip
_OF_CONTAINERS = ("compose", "container")


def changes(decided: Mapping[str, Any], facts: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """What has to be done, and what is said about the host.

    Args:
        decided: what C(plan) returned; it has no refusals.
        facts: what C(plan) was given, too.
        texts: what the templates make of C(unit), C(dropin) and C(secrets), or of C(compose), and where figures are
            wanted of C(metrics_program) and C(metrics_unit).

    Returns:
        C(install), C(note), C(firewall), C(firewall_left), C(openings), C(configure), C(service), C(container),
        C(prune), C(metrics) and C(metrics_left): which parts of the role have work to do, and C(any) of them.
        C(differs) is the same without C(openings), as other firewalls have to be told to know whether they differ.
        C(serves) says whether there is a server to be stopped, C(texts) are those that were given, with their marks,
        and C(remarks) are sentences. The others are named after what they decide.
    """
    given = decided["given"]
    found: Mapping[str, Any] = facts["ollama"]
    there = {path: seen["sha256"] for path, seen in found["files"].items() if seen["sha256"]}
    native = decided["native"]
    made = {
        **dict.fromkeys((*_OF_SERVICES, *_OF_CONTAINERS), False),
        **_guard.changes(found["firewall"], decided["firewall_wanted"], decided["guard"], given["port"], there),
        **metrics.changes(found, given, texts, there),
        **(_service if native else _container)(found, decided, texts, there),
        "libraries_ready": facts["python"]["requests"] != "",
        "there": sorted(there),
    }
    made["packages"] = [
        *([] if made["libraries_ready"] else ["python3-requests"]),
        *(["zstd"] if made["zstd_needed"] else []),
        *(["nftables"] if decided["firewall_wanted"] and not found["nft"] else []),
    ]
    store = found["models_dir"]
    made["store"] = not store["exists"] or (native and (store["owner"] != given["user"] or made["container_left"]))
    made["install"] = bool(
        made["packages"]
        or made["store"]
        or made["unit"]
        or (native and not (made["release_ready"] and found["user"]["exists"]))
    )
    versions = {*found["releases"], given["version"]}
    made["prune"] = native and made["libraries_ready"] and len(versions) > int(given["keep"]) + 1
    made["previous"] = before.previous(found, native)
    made["noted"] = found["way_back"] or before.note(found, made["previous"], there)
    made["note"] = bool(native and made["previous"] and not found["way_back"] and (made["configure"] or made["switch"]))
    # One that listens elsewhere than is wanted, or that is too busy to answer the look in time, has calls to lose, too.
    made["serves"] = bool(found["server"] or found["active"] or found["container"]["running"])
    made["any"] = any(made[part] for part in _PARTS)
    made["differs"] = any(made[part] for part in _PARTS if part != "openings")
    waiting = [] if made["service"] else found["unit"]["pending"]
    said = [*decided["warnings"], *unit.remarks(given, found, decided, waiting)]
    made["remarks"] = [f"{given['host']}: {sentence}" for sentence in said]
    return made


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _service(
    found: Mapping[str, Any], decided: Mapping[str, Any], texts: Mapping[str, str], there: Mapping[str, str]
) -> dict[str, Any]:
    """Its release, its files, and whether it runs as they say."""
    given, version = decided["given"], decided["given"]["version"]
    ready = _release_ready(given["checksums"], found["releases"].get(version) or {}, decided["overlays"])
    written = f"# llmops.stack {_digest(texts['unit'])}\n{texts['unit']}"
    # Among what a process was started with it says whether that is what is wanted now, whatever drop-ins of an operator
    # add.
    env = sorted(((str(name), str(value)) for name, value in decided["env"].items()), key=lambda pair: pair[0].lower())
    stamp = _digest(f"{written}{env}{version}")[:12]
    dropin = texts["dropin"].replace("stamp_@", stamp)
    differs = {
        "unit": not decided["unit"]["kept"] and _digest(written) != there.get(places.UNIT),
        "dropin": _digest(dropin) != there.get(f"{places.UNIT}.d/{places.DROPIN}"),
        "secrets": bool(decided["secrets"]) and _digest(texts["secrets"]) != there.get(places.SECRETS),
        "switch": found["current"] != version or found["link"] != f"{given['home']}/current/bin/ollama",
    }
    configure = differs["unit"] or differs["dropin"] or differs["secrets"]
    restart = (
        configure
        or not found["active"]
        or found["running_env"].get("OLLAMA_LLMOPS_STAMP", "") != stamp
        or found["server"] not in ("", version)
    )
    return {
        **differs,
        "texts": {"unit": written, "dropin": dropin, "secrets": texts["secrets"]},
        "stamp": stamp,
        "release_ready": ready,
        "zstd_needed": not ready and not found["zstd"] and release_info(version)["suffix"] == ".tar.zst",
        "container_left": f"{given['home']}/compose.yaml" in there,
        "configure": configure,
        "restart": restart,
        "service": bool(
            restart or not found["enabled"] or differs["switch"] or found["unit"]["reload"] or found["way_back"]
        ),
    }


def _release_ready(checksums: Mapping[str, Any], release: Mapping[str, Any], overlays: list[str]) -> bool:
    if not release.get("complete") or set(overlays) != set(release["overlays"]):
        return False
    # Only of the archives that this host has; the variable may name those of others, too.
    unpacked = release["checksums"]
    pins = {name: str(digest).strip().lower() for name, digest in checksums.items() if name in unpacked}
    return all(unpacked[name] == digest.removeprefix("sha256:") for name, digest in pins.items())


def _container(
    found: Mapping[str, Any], decided: Mapping[str, Any], texts: Mapping[str, str], there: Mapping[str, str]
) -> dict[str, Any]:
    """Its label says which file it was made from."""
    given = decided["given"]
    stamp = _digest(texts["compose"])[:12]
    text = texts["compose"].replace("stamp_@", stamp)
    differs = _digest(text) != there.get(f"{given['home']}/compose.yaml")
    here = found["container"]
    as_wanted = here["running"] and here["stamp"] == stamp and here["image"] == decided["image"]
    return {
        "texts": {"compose": text},
        "stamp": stamp,
        "compose": differs,
        "container": differs or not as_wanted or found["server"] not in ("", given["version"]),
    }
