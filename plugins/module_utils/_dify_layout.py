# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a release folder is, and when it is whole: one definition for the facts and for what unpacks and repairs it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

__all__ = ["COMPOSE_FILE", "MARKER", "is_complete", "lacks", "read_marker"]

MARKER = ".llmops-release.json"
COMPOSE_FILE = "docker-compose.yaml"


def read_marker(folder: str) -> dict[str, Any]:
    """What was noted when the release was unpacked; empty without a readable note."""
    try:
        with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
            noted = json.load(file)
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def lacks(folder: str, noted: Mapping[str, Any]) -> list[str]:
    """Files of the archive that are not in the folder any more."""
    return [name for name in noted.get("files") or {} if not os.path.isfile(os.path.join(folder, name))]


def is_complete(folder: str, tag: str) -> bool:
    noted = read_marker(folder)
    return noted.get("tag") == tag and not lacks(folder, noted)
