# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What served on a host before a run changes it, and what a way back to it needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as places

__all__ = ["UNDO", "note", "previous"]

# The files that a way back puts back.
UNDO = (places.UNIT, f"{places.UNIT}.d/{places.DROPIN}", places.SECRETS, places.PLACES.rules)
_HOST = re.compile(r"(?:(https?)://)?(\[[^]]*\]|[^:/]*)(?::([0-9]+))?")


def previous(found: Mapping[str, Any], native: bool) -> str:
    """The version that served, as far as anybody can tell; empty where none did."""
    noted = found["way_back"].get("version", "") if native else ""
    return str(noted or found["server"] or (found["current"] if native else _of_container(found["container"])))


def _of_container(container: Mapping[str, Any]) -> str:
    """One that serves at another port than the wanted one was not heard."""
    tag = re.search(r":([0-9]+[.][0-9.]+(?:-rc[0-9]+)?)(?:-rocm)?$", container["image"])
    return tag.group(1) if container["running"] and tag else ""


def note(found: Mapping[str, Any], version: str, there: Mapping[str, str]) -> dict[str, Any]:
    """What is noted on the host before anything is changed.

    Args:
        found: C(llmops_stack.ollama).
        version: what C(previous) says.
        there: the files of the role that are on the host.
    """
    # The link may lead to the wanted version already, while the one before still runs.
    release = found["releases"].get(version) or {}
    own = found["unit"]["ours"] and release.get("complete")
    return {
        "version": version,
        "current": version if own else found["current"],
        "url": _url(found),
        "files": [path for path in UNDO if path in there],
    }


def _url(found: Mapping[str, Any]) -> str:
    """Where it is asked from the host itself."""
    said = found["running_env"].get("OLLAMA_HOST") or found["unit"]["environment"].get("OLLAMA_HOST") or ""
    parts = _HOST.match(said)
    scheme, host, port = parts.groups() if parts else ("", "", "")
    everywhere = host in ("", "0.0.0.0", "[::]")  # noqa: S104 - compared, not bound
    return f"http://{'127.0.0.1' if everywhere else host}:{port or {'http': 80, 'https': 443}.get(scheme, 11434)}"
