# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a tree of an Ollama release is, and when it is whole: one definition for the facts and for what unpacks it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import PROGRAM

__all__ = ["CURRENT", "MARKER", "current", "is_complete", "lacks", "read_marker", "releases"]

MARKER = ".llmops-release.json"
CURRENT = "current"


def read_marker(folder: str) -> dict[str, Any]:
    """What was noted when the release was unpacked: version, overlays, files (archive: sha256), tree (path: bytes of a
    file or target of a link). Empty without a readable note of ours."""
    try:
        with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
            noted = json.load(file)
    except (OSError, ValueError):
        return {}
    whole = isinstance(noted, dict) and all(
        isinstance(noted.get(key), kind) for key, kind in (("version", str), ("files", dict), ("tree", dict))
    )
    return noted if whole else {}


def lacks(folder: str, noted: Mapping[str, Any]) -> list[str]:
    """What is not in the tree any more as it was unpacked; a file that a power cut left empty is not."""
    return sorted(
        path for path, kept in noted.get("tree", {}).items() if not _is_kept(os.path.join(folder, path), kept)
    )


def _is_kept(path: str, kept: Any) -> bool:
    try:
        if isinstance(kept, str):
            return os.readlink(path) == kept
        return not os.path.islink(path) and os.path.isfile(path) and os.path.getsize(path) == kept
    except OSError:
        return False


def is_complete(folder: str, version: str) -> bool:
    noted = read_marker(folder)
    return noted.get("version") == version and PROGRAM in noted["tree"] and not lacks(folder, noted)


def releases(home: str) -> dict[str, dict[str, Any]]:
    """The releases below a home by version: C(complete), C(checksums) (archive: sha256), C(overlays). What was not
    unpacked by this collection is not among them."""
    found = {}
    try:
        names = sorted(os.listdir(home))
    except OSError:
        return {}
    for name in names:
        folder = os.path.join(home, name)
        noted = {} if name.startswith(".") or os.path.islink(folder) else read_marker(folder)
        if noted.get("version") == name:
            found[name] = {
                "complete": is_complete(folder, name),
                "checksums": dict(noted["files"]),
                "overlays": list(noted.get("overlays") or []),
            }
    return found


def current(home: str) -> str:
    """The version that C(current) points to, empty without one."""
    try:
        return os.path.basename(os.readlink(os.path.join(home, CURRENT)).rstrip("/"))
    except OSError:
        return ""
