# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What was last written into Dify, in one 0600 file: values as Dify shows them, and of secrets a salted hash."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

_ROUNDS = 100_000


@dataclasses.dataclass(frozen=True)
class Remembered:
    """One model, as it was left."""

    values: Mapping[str, str]
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of secrets: salt$hash
    credential_id: str = ""
    is_default: bool = False

    def is_as_left(self, key: str, found: str) -> bool:
        return key in self.values and self.values[key] == found

    def is_secret(self, key: str, value: str) -> bool:
        """Whether this is the secret that was written; true where nobody knows."""
        salt, _separator, expected = self.hashes.get(key, "").partition("$")
        return not expected or hmac.compare_digest(expected, _digest(salt, value))


class Record:
    """The file. Without a path nothing is remembered."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        self._changed = False
        if path:
            # Lost or damaged means that nothing is remembered; then no difference is taken for one's own.
            with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                content = json.load(file)
                self._known = content if isinstance(content, dict) else {}

    def entry(self, name: str) -> dict[str, Any] | None:
        found = self._known.get(name)
        return found if isinstance(found, dict) else None

    def put(self, name: str, entry: dict[str, Any] | None) -> None:
        if not self.path or self.entry(name) == entry:
            return
        self._changed = True
        if entry is None:
            del self._known[name]
        else:
            self._known[name] = entry

    def get(self, name: str) -> Remembered | None:
        entry = self.entry(name)
        if entry is None:
            return None
        return Remembered(
            values=dict(entry.get("values") or {}),
            hashes=dict(entry.get("hashes") or {}),
            credential_id=str(entry.get("credential_id") or ""),
            is_default=bool(entry.get("is_default")),
        )

    def set(self, name: str, model: Remembered | None) -> None:
        self.put(name, None if model is None else dataclasses.asdict(model))

    def defaults(self) -> list[str]:
        return [name for name in self._known if (self.entry(name) or {}).get("is_default")]

    def set_default(self, name: str, is_default: bool) -> None:
        entry = self.entry(name)
        if entry is not None:
            self.put(name, {**entry, "is_default": is_default})

    def save(self) -> None:
        if not self._changed:
            return
        write_atomically(self.path, json.dumps(self._known, indent=1, sort_keys=True) + "\n", 0o600)
        self._changed = False


def hashed(value: str) -> str:
    salt = secrets.token_hex(16)
    return f"{salt}${_digest(salt, value)}"


def _digest(salt: str, value: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", value.encode(), salt.encode(), _ROUNDS).hex()
