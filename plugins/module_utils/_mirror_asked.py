# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is known about the hosts of an inventory, for whoever says what they need of a mirror. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Asked", "digest"]


class Asked(Protocol):
    """See C(_mirror_needs)."""

    hosts: dict[str, list[str]]
    settings: Mapping[str, Any]
    notes: list[str]

    def value(self, host: str, name: str) -> Any: ...

    def given(self, host: str, name: str) -> bool: ...

    def facts(self, host: str) -> Mapping[str, Any]: ...

    def architectures(self, host: str) -> list[str]: ...


def digest(checksum: Any) -> str:
    """The hex digits of a sha256 that somebody has written down; empty where nobody has."""
    text = str(checksum or "").strip().lower().rsplit(":", maxsplit=1)[-1]
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else ""
