# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The first keys of a GGUF file, which say what shape the model has: layers, heads, widths, the longest context.

A file begins with them, then come the tokens of its vocabulary, some megabytes of them, and then weights. Only as much
of it is needed as C(read) asks for, so that the shape of a model of 40 GB is known after a few kilobytes.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["NotGgufError", "ShortError", "read"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # the first one, which counted in 32 bits, has been gone since 2023
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_LONGEST = 1024  # more values than any model has layers
# With these the shape is known as soon as the vocabulary begins; another order of keys is read to its end.
_NEEDED = ("block_count", "embedding_length", "attention.head_count")


class NotGgufError(ValueError):
    """These bytes are the beginning of no GGUF file; the text is half a sentence."""


class ShortError(Exception):
    """More of the file is needed."""


def read(data: bytes) -> dict[str, Any]:
    """The keys of the model's architecture without its name before them, and C(architecture).

    Numbers, booleans, short text, and arrays of numbers that may be one for each layer; the rest is left out.

    Raises:
        ShortError: The keys do not end in these bytes.
        NotGgufError: This is something else.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != _MAGIC:
        raise NotGgufError("does not begin as a GGUF file")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise NotGgufError(f"is a GGUF file of version {version}, which is not known here")
    cursor.take(8)  # the count of tensors
    found: dict[str, Any] = {}
    for _key in range(cursor.number("Q")):
        key = cursor.text()
        if key.startswith("tokenizer.") and _is_enough(found):
            break
        value = cursor.value(cursor.number("I"))
        if value is not None:
            found[key] = value
    return _shape(found)


def _is_enough(found: dict[str, Any]) -> bool:
    architecture = found.get("general.architecture")
    return all(f"{architecture}.{name}" in found for name in _NEEDED)


def _shape(found: dict[str, Any]) -> dict[str, Any]:
    architecture = str(found.get("general.architecture", ""))
    prefix = f"{architecture}."
    own = {key[len(prefix) :]: value for key, value in found.items() if architecture and key.startswith(prefix)}
    return {"architecture": architecture, **own}


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def skip(self, count: int) -> int:
        """Where it was before."""
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise ShortError
        return start

    def take(self, count: int) -> bytes:
        start = self.skip(count)
        return self.data[start : self.place]

    def number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        return int(value)

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            text = self.text()
            return text if len(text) <= _LONGEST else None
        if kind == _ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        return self.numbers(kind, 1)[0]

    def array(self, kind: int, count: int) -> Any:
        if kind == _STRING:
            for _text in range(count):
                self.skip(self.number("Q"))
            return None
        if kind == _ARRAY:
            raise NotGgufError("has a key that is not understood")
        if count > _LONGEST:
            self.skip(count * struct.calcsize(f"<{self.code(kind)}"))
            return None
        return self.numbers(kind, count)

    def numbers(self, kind: int, count: int) -> list[Any]:
        code = f"<{count}{self.code(kind)}"
        values = list(struct.unpack(code, self.take(struct.calcsize(code))))
        return [bool(one) for one in values] if kind == _BOOL else values

    def code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise NotGgufError("has a key that is not understood")
        return _NUMBERS[kind]
