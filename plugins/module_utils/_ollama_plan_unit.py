# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The unit of an Ollama service against what the role would write: whose it is, and whether it may stay. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_ollama import UNIT

__all__ = ["refusals", "remarks", "state"]

_EDITED = f"{UNIT} was edited by hand"
_AGAIN = "Move what was edited into a drop-in (systemctl edit ollama) and set ollama_unit_replace to true once."
_KEPT = f"{_EDITED}, so it is left as it is, and"


def state(given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What is done about the one that is there.

    Args:
        given: variables of the role, without C(ollama_) before their names.
        found: C(llmops_stack.ollama).
    """
    there = found["unit"]
    foreign = there["exists"] and not there["ours"]
    return {
        "kept": there["ours"] and there["edited"] and not given["unit_replace"],
        "foreign": foreign,
        "in_the_way": foreign and there["path"] == UNIT,
        "environment": [f"{name}={value}" for name, value in there["environment"].items() if name != "PATH"],
    }


def refusals(given: Mapping[str, Any], found: Mapping[str, Any], decided: Mapping[str, Any]) -> list[str]:
    """What cannot stand in a unit, and units that would not work with what is wanted."""
    said = []
    if re.match(r"/(home|root|run/user)(/|$)", given["home"]):
        said.append(
            f"ollama_home is {given['home']}, where the service does not see its own program (ProtectHome). Put it "
            "elsewhere."
        )
    paths = (given["home"], given["models_dir"], decided["store"])
    if not all(re.fullmatch(r"/[A-Za-z0-9/._+@-]+", path) for path in paths):
        said.append(
            "ollama_home and ollama_models_dir are written into a systemd unit, so they may hold letters, digits and "
            "/._+@- only."
        )
    if decided["native"] and found["unit"]["masked"]:
        said.append(
            "The unit ollama.service is masked, so somebody wants it not to run. Unmask it (systemctl unmask ollama), "
            "or take the host out."
        )
    odd = [name for name in given["container_interfaces"] if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}[*]?", name)]
    if odd:
        said.append(
            f"ollama_container_interfaces names {', '.join(odd)}, which is no name of an interface. Write names such "
            "as docker0, with a * at the end for all that begin so."
        )
    return [*said, *(_edited(given, found["unit"], decided) if decided["unit"]["kept"] else [])]


def _edited(given: Mapping[str, Any], there: Mapping[str, Any], decided: Mapping[str, Any]) -> list[str]:
    said = []
    if there["guarded"] and not decided["firewall_wanted"]:
        why = "ollama_firewall: none" if given["firewall"] == "none" else f"an ollama_bind of {decided['bind']}"
        said.append(
            f"{_KEPT} in it the service starts only behind our firewall rules, which {why} takes away. {_AGAIN}"
        )
    if not there["guarded"] and decided["firewall_wanted"]:
        said.append(
            f"{_KEPT} in it the service starts without our firewall rules, although Ollama is to listen at "
            f"{decided['bind']}. {_AGAIN}"
        )
    closed = [path for path in decided["writes"] if not any(_below(path, folder) for folder in there["writable"])]
    if closed:
        said.append(
            f"{_KEPT} it lets the service write to {', '.join(there['writable'])} but not to {', '.join(closed)}. "
            f"{_AGAIN}"
        )
    return said


def _below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def remarks(
    given: Mapping[str, Any], found: Mapping[str, Any], decided: Mapping[str, Any], pending: list[str]
) -> list[str]:
    """What goes ahead, and an operator should know; C(pending) are settings that wait for the next start."""
    said = []
    if decided["native"] and decided["unit"]["kept"]:
        said.append(
            f"{_EDITED} and is left as it is. Move the changes into a drop-in (systemctl edit ollama), which upgrades "
            "leave alone, and set ollama_unit_replace: true once to have the role write the unit again."
        )
    if decided["native"] and found["dropins"]:
        said.append(f"Drop-ins of your own stay, and win over the role: {', '.join(found['dropins'])}.")
    if decided["native"] and pending:
        said.append(
            f"The server was started with other settings than its files have now: {', '.join(pending)}. They count "
            "from its next start on (systemctl restart ollama)."
        )
    if given["firewall"] == "none" and not decided["loopback"]:
        said.append(
            f"Ollama listens at {decided['bind']} and ollama_firewall is none. It has no login: see to it that another "
            f"firewall guards port {given['port']}."
        )
    return said
