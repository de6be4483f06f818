# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The folder of a gateway: what it knows, and the files that HAProxy reads, which are made from that."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically
from ansible_collections.llmops.stack.plugins.module_utils._gateway_config import CONFIG, KEYS
from ansible_collections.llmops.stack.plugins.module_utils._gateway_state import StateError

__all__ = ["Home"]

_NODES = "nodes.json"
_SETTINGS = "settings.json"
_LOCK = ".lock"
# With the key in them.
_PRIVATE = (_SETTINGS, KEYS)


class Home:
    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time: a play may ask for many nodes at once, each from the task of its host."""
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        with open(os.path.join(self.path, _LOCK), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def nodes(self) -> dict[str, Any]:
        """Raises: StateError."""
        return self._load(_NODES, "calls are refused from then on until site.yml has proved the nodes again")

    def settings(self) -> dict[str, Any]:
        """Raises: StateError."""
        return self._load(_SETTINGS, "site.yml writes it anew")

    def _load(self, name: str, without: str) -> dict[str, Any]:
        """What a gateway forgets it passes no calls to, so that only a file that is not there says nothing."""
        path = os.path.join(self.path, name)
        try:
            with open(path, encoding="utf-8") as file:
                loaded = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise StateError(self._damaged(path, str(exc), without)) from exc
        if not isinstance(loaded, dict):
            raise StateError(self._damaged(path, "it holds no object", without))
        return loaded

    def _damaged(self, path: str, found: str, without: str) -> str:
        return (
            f"{path} should be JSON, as this collection has written it, and cannot be read: {found}. HAProxy goes on "
            "as before; nothing was changed. Put the file back from a backup, or remove it and run site.yml; "
            f"{without}."
        )

    def keep(self, settings: dict[str, Any], nodes: dict[str, Any]) -> None:
        """Before the files that follow from it: a run that ends in between leaves what the next one needs."""
        self._write(_SETTINGS, _dump(settings))
        self._write(_NODES, _dump(nodes))

    def differs(self, settings: dict[str, Any], nodes: dict[str, Any], files: dict[str, str]) -> bool:
        wanted = {**files, _SETTINGS: _dump(settings), _NODES: _dump(nodes)}
        return any(self._read(name) != text for name, text in wanted.items())

    def land(self, files: dict[str, str]) -> None:
        for name in sorted(files, key=lambda one: one == CONFIG):  # what it names comes first
            self._write(name, files[name])

    @contextlib.contextmanager
    def candidate(self) -> Iterator[Home]:
        """A folder for files that are to be judged."""
        parent = self.path if os.path.isdir(self.path) else None
        path = tempfile.mkdtemp(prefix=".candidate-", dir=parent)
        try:
            yield Home(path)
        finally:
            shutil.rmtree(path)

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self.path, name)
        mode = 0o600 if name in _PRIVATE else 0o644
        if self._read(name) == text and os.path.exists(path):
            return
        write_atomically(path, text, mode)


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"
