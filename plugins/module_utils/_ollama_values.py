# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What Ollama can read. No setting keeps it from starting: what it cannot read it replaces by a default.

Every function takes a value as YAML gave it and returns the text for the environment, empty where nothing is set. It
raises ValueError, with the end of a sentence that begins "NAME is VALUE, ", for whatever Go's ParseDuration, ParseInt,
ParseUint and ParseBool would refuse, and for some more that they read otherwise than anybody means.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "CANNOT_READ", "address", "boolean", "device_list", "duration", "gfx_version", "level", "line_of", "one_of",
    "origins", "path", "proxy", "switch", "text", "whole",
]  # fmt: skip

CANNOT_READ = "which Ollama cannot read"

_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_NANOSECONDS["h"] = 60 * _NANOSECONDS["m"]
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_MOST = 2**63 - 1
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_EXTENSIONS = ("chrome-extension", "safari-extension", "moz-extension", "ms-browser-extension")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def line_of(value: Any) -> str:
    """One line, for a variable that is not Ollama's."""
    if isinstance(value, (dict, list, tuple)):
        raise ValueError("which is not one value")
    if isinstance(value, bool):
        return "true" if value else "false"
    line = "" if value is None else str(value)
    if _CONTROL.search(line):
        raise ValueError("which holds a line break or another control character")
    return line


def text(value: Any) -> str:
    """One line that arrives as it is written: Ollama cuts quotes and spaces off the ends."""
    line = line_of(value)
    if line != line.strip(" \"'"):
        raise ValueError("whose quotes or spaces at the ends Ollama would cut off")
    return line


def duration(value: Any) -> str:
    """A Go duration or whole seconds. Here 0 is a value like any other."""
    if isinstance(value, bool):
        raise ValueError("which is no duration")
    line = text(value)
    if not line:
        return ""
    if re.fullmatch(r"[-+]?[0-9]+", line):
        if abs(int(line)) * 10**9 > _MOST:
            raise ValueError("which is more seconds than Ollama can count")
        return line
    parts = line[1:] if line[0] in "+-" else line
    if not re.fullmatch(rf"(?:{_PART.pattern})+", parts):
        raise ValueError(CANNOT_READ)
    if sum(Fraction(f"0{count}") * _NANOSECONDS[unit] for count, unit in _PART.findall(parts)) > _MOST:
        raise ValueError("which is longer than Ollama can count")
    return line


def whole(most: int) -> Callable[[Any], str]:
    """A whole number from 1 on; 0 leaves it to Ollama."""

    def read(value: Any) -> str:
        line = "" if isinstance(value, bool) else text(value)
        if isinstance(value, bool) or (line and not re.fullmatch(r"[0-9]+", line)):
            raise ValueError(CANNOT_READ)
        if line and int(line) > most:
            raise ValueError(f"which is more than {most}")
        return str(int(line)) if line and int(line) else ""

    return read


def boolean(value: Any) -> str:
    """1 or 0, for settings that know a third state, unset."""
    if isinstance(value, bool):
        return "1" if value else "0"
    line = text(value)
    if line and line not in _TRUE + _FALSE:
        raise ValueError("which Ollama would take for true, as it does with every word it does not know")
    return "" if not line else "1" if line in _TRUE else "0"


def switch(value: Any) -> str:
    """1, or not set at all."""
    return "1" if boolean(value) == "1" else ""


def level(value: Any) -> str:
    """0 (or false), 1 (or true), 2."""
    line = ("1" if value else "0") if isinstance(value, bool) else text(value)
    if line and line not in (*_TRUE, *_FALSE, "2"):
        raise ValueError("which is no level that Ollama knows")
    return "" if not line or line in _FALSE else "1" if line in _TRUE else line


def one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        line = text(value)
        if line and line not in words:
            raise ValueError("which Ollama does not know")
        return line

    return read


def path(value: Any) -> str:
    line = text(value)
    if line and (not line.startswith("/") or "/../" in f"{line}/"):
        raise ValueError("which is no absolute path")
    return line.rstrip("/") if line.strip("/") else line


def gfx_version(value: Any) -> str:
    line = text(value)
    if line and not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", line):
        raise ValueError("which is not of the form x.y.z")
    return line


def address(value: Any) -> str:
    """An address of this host as OLLAMA_HOST wants it: IPv6 in brackets."""
    line = text(value)
    if "://" in line:
        raise ValueError("whose http:// makes Ollama listen on port 80 (and https:// on 443)")
    try:
        found = ipaddress.ip_address("127.0.0.1" if line == "localhost" else line)
    except ValueError:
        raise ValueError("which is not an address") from None
    if getattr(found, "scope_id", None):
        raise ValueError("which holds the name of an interface")
    return f"[{found}]" if found.version == 6 else str(found)


def origins(value: Any) -> str:
    """Origins of web pages. One that its CORS library dislikes ends the server at its start."""
    listed = value if isinstance(value, (list, tuple)) else [one for one in text(value).split(",") if one]
    for one in map(text, listed):
        scheme = one.partition("://")[0]
        known = "://" in one and scheme in ("http", "https", *_EXTENSIONS)
        if not one or "," in one or " " in one or not (known or "*" in one) or one.count("*") > 1:
            raise ValueError(f"and with the origin {one!r} the server would not start")
        if scheme in ("http", "https") and "/" in one.partition("://")[2]:
            raise ValueError(f"and the origin {one!r}, which has a path, would match no page")
    return ",".join(map(text, listed))


def device_list(value: Any) -> list[str]:
    """Numbers or identifiers of GPUs. The runtimes stop reading at the first that they do not know."""
    listed = value if isinstance(value, (list, tuple)) else text(value).split(",")
    devices = [text(one).strip() for one in listed]
    if devices == [""]:
        return []
    for one in devices:
        if not re.fullmatch(r"[0-9]+|(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*", one):
            raise ValueError(f"where {one!r} is neither the number of a GPU nor an identifier such as GPU-8f6c…")
    if len(set(devices)) < len(devices):
        raise ValueError("which names a GPU twice, and then none is used")
    return devices


def proxy(value: Any) -> str:
    """A proxy for pulls; one that Go cannot read is left out without a word."""
    line = text(value)
    if not line:
        return ""
    try:
        parts = urlsplit(line)
        port = parts.port
    except ValueError:
        raise ValueError("which is no valid URL, so that Ollama would go without a proxy") from None
    if parts.scheme not in ("http", "https", "socks5") or not parts.hostname or port == 0 or " " in line:
        raise ValueError("which is not the URL of a proxy, so that Ollama would go without one")
    return line
