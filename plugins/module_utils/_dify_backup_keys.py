# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Whether a workspace's private key belongs to its public one.

Dify encrypts credentials with a public key that it keeps in the database and decrypts them with a private key that it
keeps in a file. With the file of another pair it says nothing and sends the encrypted text to the model server instead
of the secret, so the two are compared here: a pair of RSA shares its modulus.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Pairs", "compare", "key_path", "modulus"]

_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE, _INTEGER, _BITS, _OCTETS = 0x30, 0x02, 0x03, 0x04


@dataclass
class Pairs:
    checked: int = 0
    missing: list[str] = field(default_factory=list)  # workspaces without a file
    foreign: list[str] = field(default_factory=list)  # with a file that is no key, or one of another pair

    @property
    def complete(self) -> bool:
        return not self.missing and not self.foreign


def key_path(tenant: str) -> str:
    """Where Dify keeps the key, below its storage."""
    return f"privkeys/{tenant}/private.pem"


def compare(public: Mapping[str, str], private: Mapping[str, bytes]) -> Pairs:
    """Public keys by workspace, private ones by their path below the storage.

    A workspace whose public key cannot be read is not counted: nothing can be said of it.
    """
    found = Pairs()
    for tenant in sorted(public):
        wanted = modulus(public[tenant])
        if wanted is None:
            continue
        found.checked += 1
        content = private.get(key_path(tenant))
        if content is None:
            found.missing.append(tenant)
        elif modulus(content.decode("ascii", "replace")) != wanted:
            found.foreign.append(tenant)
    return found


def modulus(pem: str) -> int | None:
    """The modulus of an RSA key, public or private, in any of the forms that PEM has for it."""
    match = _PEM.search(pem)
    if not match:
        return None
    try:
        data = base64.b64decode(re.sub(r"\s", "", match.group(2)), validate=True)
        values = _inside(_expect(data, _SEQUENCE))
        if match.group(1) == "PUBLIC KEY":  # algorithm, then the key as a string of bits with a count before it
            values = _inside(_expect(_find(values, _BITS)[1:], _SEQUENCE))
        elif match.group(1) == "PRIVATE KEY":  # version, algorithm, then the key as a string of bytes
            values = _inside(_expect(_find(values, _OCTETS), _SEQUENCE))
        numbers = [int.from_bytes(content, "big") for tag, content in values if tag == _INTEGER]
        return numbers[1 if "PRIVATE" in match.group(1) else 0]  # a private key begins with its version
    except (ValueError, IndexError, binascii.Error):
        return None


def _expect(data: bytes, tag: int) -> bytes:
    found, content, _rest = _element(data)
    if found != tag:
        raise ValueError(found)
    return content


def _find(values: list[tuple[int, bytes]], tag: int) -> bytes:
    return next(content for found, content in [*values, (tag, b"")] if found == tag)


def _inside(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        tag, content, data = _element(data)
        found.append((tag, content))
    return found


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of DER, and what comes after it."""
    tag, size, at = data[0], data[1], 2
    if size & 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if len(data) < at + size:
        raise ValueError("too short")
    return tag, data[at : at + size], data[at + size :]
