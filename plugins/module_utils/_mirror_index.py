# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a mirror holds, as it was when it arrived and was found good: one file beside the folders.

files    path below the home: sha256, size, mtime_ns of the file, and what it is for
images   name in the mirror's registry: digest, size, architectures
plugins  identifier: version, wheels by python and architecture, the marketplace's card
models   canonical name: digest, size
repositories  name of the need: what was wished for, and its files; of the cache of packages nothing but the wish
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._download import sha256_of, write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._mirror_fetch import MirrorError

__all__ = ["INDEX", "Index"]

INDEX = "index.json"
_SECTIONS = ("files", "images", "models", "plugins", "repositories")


class Index:
    def __init__(self, home: str) -> None:
        self.home = home
        self.path = os.path.join(home, INDEX)
        self.lock = threading.RLock()
        self.data: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        try:
            with open(self.path, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            found = {}
        for name in _SECTIONS:
            if isinstance(found, dict) and isinstance(found.get(name), dict):
                self.data[name] = found[name]

    def absolute(self, path: str) -> str:
        """Where a file of the mirror is.

        Raises:
            MirrorError: the list of a package source or another server named one outside of the mirror's folder.
        """
        if os.path.isabs(path) or ".." in path.split("/"):
            raise MirrorError(f"{path} would be outside of {self.home}, so it was not taken.", "Check mirror_upstream.")
        return os.path.join(self.home, path)

    def holds(self, path: str, sha256: str = "") -> bool:
        """Whether the file is there as it was found good; one that was touched since is read again."""
        with self.lock:
            noted = self.data["files"].get(path)
        try:
            seen = os.stat(self.absolute(path))
        except OSError:
            return False
        if not noted:
            # Without a sum from elsewhere nothing says that this file is whole.
            return bool(sha256) and self._learn(path, sha256)
        if sha256 and noted["sha256"] != sha256:
            return False
        if (seen.st_size, seen.st_mtime_ns) == (noted["size"], noted["mtime_ns"]):
            return True
        return seen.st_size == noted["size"] and self._learn(path, noted["sha256"])

    def _learn(self, path: str, sha256: str) -> bool:
        if sha256_of(self.absolute(path)) != sha256:
            return False
        self.note(path, sha256)
        return True

    def note(self, path: str, sha256: str, about: str = "") -> None:
        seen = os.stat(self.absolute(path))
        with self.lock:
            about = about or self.data["files"].get(path, {}).get("for", "")
            self.data["files"][path] = {
                "sha256": sha256,
                "size": seen.st_size,
                "mtime_ns": seen.st_mtime_ns,
                "for": about,
            }

    def forget(self, paths: Iterable[str]) -> None:
        with self.lock:
            for path in paths:
                self.data["files"].pop(path, None)

    def put(self, section: str, name: str, value: dict[str, Any]) -> None:
        with self.lock:
            self.data[section][name] = value

    def get(self, section: str, name: str) -> dict[str, Any] | None:
        with self.lock:
            return self.data[section].get(name)

    def save(self) -> None:
        with self.lock:
            text = json.dumps({"version": 1, **self.data}, indent=1, sort_keys=True) + "\n"
            try:
                with open(self.path, encoding="utf-8") as file:
                    if file.read() == text:
                        return
            except OSError:
                pass
            os.makedirs(self.home, mode=0o755, exist_ok=True)
            write_atomically(self.path, text, 0o644)
