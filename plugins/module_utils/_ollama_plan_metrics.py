# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The program beside Ollama that serves its figures to Prometheus: whether it is wanted and whether it is there.

Pure.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_ollama import METRICS_PROGRAM, METRICS_UNIT

__all__ = ["changes", "refusals"]


def refusals(given: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Args: C(given): variables of the role, without C(ollama_) before their names. C(facts): C(llmops_stack)."""
    if not given["metrics"]:
        return []
    said = []
    if int(given["metrics_port"]) == int(given["port"]):
        said.append(
            f"ollama_metrics_port is {given['metrics_port']}, where Ollama itself listens (ollama_port). Choose "
            "another."
        )
    else:
        said += _taken(int(given["metrics_port"]), facts)
    try:
        ipaddress.ip_address(str(given["metrics_bind"]))
    except ValueError:
        said.append(
            f"ollama_metrics_bind is {given['metrics_bind']}, which is no address. Write one of this host's, 0.0.0.0 "
            "for all of them, or leave 127.0.0.1."
        )
    return said


def _taken(port: int, facts: Mapping[str, Any]) -> list[str]:
    owner = facts["ports"].get(str(port))
    if not owner or owner["unit"] == METRICS_UNIT.rpartition("/")[2]:
        return []
    if facts["ollama"]["metrics"]["active"] and not owner["pid"] and not owner["container"]:
        return []  # without root nobody sees whose port it is
    who = f"the container {owner['container']}" if owner["container"] else owner["process"] or "a process"
    pid = f" (pid {owner['pid']})" if owner["pid"] and not owner["container"] else ""
    return [
        f"Port {port}, where the figures of Ollama are to be served, is taken by {who}{pid}. Stop it, or give the "
        "figures another one (ollama_metrics_port)."
    ]


def changes(
    found: Mapping[str, Any], given: Mapping[str, Any], texts: Mapping[str, str], there: Mapping[str, str]
) -> dict[str, bool]:
    """C(metrics): there is something to do for it; C(metrics_left): it is there and not wanted.

    Args:
        found: C(llmops_stack.ollama).
        given: variables of the role, without C(ollama_) before their names.
        texts: where it is wanted, what C(metrics_program) and C(metrics_unit) are to say.
        there: digests of the files that are there.
    """
    places = {"metrics_program": f"{given['home']}/{METRICS_PROGRAM}", "metrics_unit": METRICS_UNIT}
    if not given["metrics"]:
        return {"metrics": False, "metrics_left": any(path in there for path in places.values())}
    runs = found["metrics"]["active"] and found["metrics"]["enabled"]
    differs = any(hashlib.sha256(texts[name].encode()).hexdigest() != there.get(path) for name, path in places.items())
    return {"metrics": differs or not runs, "metrics_left": False}
