# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What is asked for, and one model on its way there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_probe import ProbeError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_pull import PullError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Found, Manifest, StoreError

_FAULTS = {
    "missing": "is missing",
    "size": "does not have the size that its manifest says",
    "digest": "does not have the bytes that its name promises",
}


class ModelError(Exception):
    """Nothing can be done for any of the models; the text says why and what to do."""


class Options(NamedTuple):
    state: str = "present"
    url: str = "http://127.0.0.1:11434"
    verify: str = "digest"
    models_dir: str = "/usr/share/ollama/.ollama/models"
    registry: str = ""
    insecure: bool = False
    proxy: str = ""
    no_proxy: str = ""
    bundle: str = ""
    deadline: float = 7200
    stall: float = 120
    probe_deadline: float = 300
    force_digest: bool = False
    defer: bool = False
    progress_file: str = ""


class Item:
    """One model: what is known of it, what is to be done, and what came of it."""

    def __init__(self, name: Name) -> None:
        self.name = name
        self.found = Found("", "absent")
        self.before = "absent"
        # What the bundle or registry has, where it was asked.
        self.offered: Manifest | None = None
        self.bad: dict[str, str] = {}
        self.fetch = False
        self.action = "none"
        self.verified = False
        self.probe: dict[str, Any] = {}
        self.capabilities: list[str] = []
        self.context_length = 0
        self.healed: list[str] = []
        self.missing_bytes = 0
        self.error = ""

    @property
    def wanted(self) -> Manifest | None:
        """What the store shall hold: what is offered, where somebody was asked, and else what it holds."""
        return self.offered or self.found.manifest

    @property
    def blobs(self) -> list[Blob]:
        return self.wanted.blobs if self.wanted else []

    @property
    def damaged(self) -> list[str]:
        """Blobs that are there and useless: a pull would take them for good, so they go before it."""
        return [sha for sha, fault in self.bad.items() if fault != "missing"]

    def judge(self, faults: dict[str, str]) -> None:
        self.bad = {one.sha: faults[one.sha] for one in self.blobs if one.sha in faults}
        self.fetch = self.found.state != "ok" or self.offered is not None or bool(self.bad)

    def complaints(self) -> list[str]:
        """What is wrong with the blobs; that one of a newer manifest is not there yet is nothing wrong."""
        own = {one.sha for one in self.found.manifest.blobs} if self.found.manifest else set()
        return [
            f"blob {sha[:12]} {_FAULTS.get(fault) or f'cannot be read ({fault})'}"
            for sha, fault in self.bad.items()
            if fault != "missing" or sha in own
        ]

    def note(self, healed: Iterable[str]) -> None:
        self.healed += [one for one in healed if one not in self.healed]

    def result(self) -> dict[str, Any]:
        manifest = self.found.manifest
        return {
            "name": self.name.short,
            "digest": manifest.sha if manifest else "",
            "size": manifest.size if manifest else 0,
            "action": self.action,
            "verified": self.verified,
            "probe": self.probe,
            "capabilities": self.capabilities,
            "context_length": self.context_length,
            "healed": self.healed,
            "missing_bytes": self.missing_bytes,
            **({"error": self.error} if self.error else {}),
        }


def each(items: Iterable[Item], step: Callable[[Item], None]) -> None:
    """One model's trouble is its own: it is noted, and the others go on."""
    for item in items:
        if item.error:
            continue
        try:
            step(item)
        except (ApiError, StoreError, PullError, ProbeError, OSError) as exc:
            item.error = str(exc)
            item.fetch = False
            item.verified = False


def to_fetch(items: Iterable[Item]) -> list[Item]:
    return [one for one in items if one.fetch and not one.error]


def all_blobs(items: Iterable[Item]) -> list[Blob]:
    return [blob for one in items if not one.error for blob in one.blobs]
