# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What the routes need of the client, and the file that hands its session to the next module of a run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

__all__ = ["Requests", "SessionFile"]


class Requests(Protocol):
    """A logged-in Console, as its routes see it."""

    secrets: set[str]

    def has(self, feature: str) -> bool: ...

    def hide(self, text: str) -> str: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, Any] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        timeout: float | None = None,
    ) -> Any: ...

    def pages(
        self, path: str, key: str, size: str, query: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]: ...


class SessionFile:
    """One login per run and host: the session of the first module serves the next ones. Only its owner can read it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @staticmethod
    def _mark(identity: str, password: str, salt: str) -> str:
        """Ties a session to the account and the password that opened it: another one must log in."""
        return hashlib.pbkdf2_hmac("sha256", f"{identity} {password}".encode(), salt.encode(), 50_000).hex()

    def read(self, identity: str, password: str) -> dict[str, Any]:
        """The session that this account and password opened, {} where there is none."""
        try:
            with open(self.path, encoding="utf-8") as file:
                kept = json.load(file)
            right = secrets.compare_digest(kept["mark"], self._mark(identity, password, kept["salt"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return kept["session"] if right and isinstance(kept.get("session"), dict) else {}

    def write(self, identity: str, password: str, session: dict[str, Any]) -> None:
        salt = secrets.token_hex(16)
        kept = {"salt": salt, "mark": self._mark(identity, password, salt), "session": session}
        # A place that cannot be written costs the next module a login and is no reason to fail.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            write_atomically(self.path, json.dumps(kept), 0o600)
