# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Names of Dify plugins: what an operator writes, what a workspace lists, and whether the two are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Installed", "Wanted", "order_of", "parse_name", "parse_version"]

_VERSION = r"\d{1,4}(?:\.\d{1,4}){1,3}(?:-\w{1,16})?"
_NAME = re.compile(rf"([a-z0-9_-]{{1,64}}/[a-z0-9_-]{{1,255}})(?::({_VERSION}))?(?:@([0-9a-f]{{32,64}}))?")
# What a plugin brings (a key of its declaration), and the category that Dify sorts it into.
_CATEGORIES = (
    ("model", "model"),
    ("tool", "tool"),
    ("agent_strategy", "agent-strategy"),
    ("datasource", "datasource"),
    ("trigger", "trigger"),
    ("endpoint", "extension"),
)


@dataclass(frozen=True)
class Wanted:
    """A plugin as it shall be. Version and checksum are empty where any will do."""

    plugin: str
    version: str = ""
    checksum: str = ""

    @property
    def identifier(self) -> str:
        """The whole identifier, empty where a part of it is not known."""
        return f"{self.plugin}:{self.version}@{self.checksum}" if self.version and self.checksum else ""

    @property
    def text(self) -> str:
        return f"{self.plugin} {self.version}".rstrip()

    @property
    def order(self) -> tuple[tuple[int, ...], bool, str]:
        """A key that sorts versions: 0.9.0 < 0.10.0-rc1 < 0.10.0."""
        return order_of(self.version)

    def is_met_by(self, found: Wanted | Installed | None) -> bool:
        return (
            found is not None
            and found.plugin == self.plugin
            and self.version in ("", found.version)
            and self.checksum in ("", found.checksum)
        )


@dataclass(frozen=True)
class Installed:
    """A plugin as the workspace lists it."""

    plugin: str
    version: str
    checksum: str
    installation: str
    source: str
    meta: dict[str, Any] = field(default_factory=dict)
    category: str = ""
    provider: str = ""

    @property
    def identifier(self) -> str:
        return f"{self.plugin}:{self.version}@{self.checksum}"

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Installed:
        identifier = str(entry.get("plugin_unique_identifier") or "")
        whole, _at, checksum = identifier.partition("@")
        plugin, _colon, version = whole.partition(":")
        declaration = entry.get("declaration")
        # Daemons leave what a plugin does not bring out of its declaration, or put null there.
        declaration = declaration if isinstance(declaration, dict) else {}
        kinds = [category for key, category in _CATEGORIES if declaration.get(key)]
        model = declaration.get("model")
        return cls(
            plugin=str(entry.get("plugin_id") or plugin),
            version=str(entry.get("version") or version),
            checksum=str(entry.get("checksum") or checksum),
            installation=str(entry.get("installation_id") or entry.get("id") or ""),
            source=str(entry.get("source") or ""),
            meta=entry["meta"] if isinstance(entry.get("meta"), dict) else {},
            category=str(declaration.get("category") or (kinds[0] if kinds else "")),
            provider=str(model.get("provider") or "") if isinstance(model, dict) else "",
        )


def order_of(version: str) -> tuple[tuple[int, ...], bool, str]:
    numbers, _dash, stage = version.partition("-")
    return tuple(int(part) for part in numbers.split(".") if part.isdigit()), not stage, stage


def parse_name(text: str) -> Wanted:
    """C(author/name), C(author/name:version) or a whole identifier.

    Raises:
        ValueError: the text is none of these.
    """
    found = _NAME.fullmatch(text.strip())
    if not found or (found.group(3) and not found.group(2)):
        raise ValueError(
            f"'{text}' is no name of a plugin: expected author/name, author/name:version or "
            "author/name:version@checksum, in lower case, as in langgenius/ollama:0.1.0"
        )
    plugin, version, checksum = found.groups()
    return Wanted(plugin, version or "", checksum or "")


def parse_version(text: str) -> tuple[str, str]:
    """Version and checksum out of C(version) or C(version@checksum).

    Raises:
        ValueError: the text is neither.
    """
    found = re.fullmatch(rf"({_VERSION})(?:@([0-9a-f]{{32,64}}))?", text.strip())
    if not found:
        raise ValueError(
            f"'{text}' is no version of a plugin: expected numbers with dots, as in 0.1.0, and no leading v"
        )
    return found.group(1), found.group(2) or ""
