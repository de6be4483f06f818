# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Environments in systemd units: written so that a value arrives as it is, read back, and shown without secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["environment_lines", "is_secret", "masked", "parse_environment", "parse_environment_file", "values_of"]

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:^|_)KEYS?(?:_|$)", re.IGNORECASE)


def environment_lines(env: Mapping[str, str]) -> list[str]:
    """Lines for [Service], sorted. Specifiers begin with %, and quotes and backslashes are eaten inside of quotes."""
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for key, value in env.items()}
    return [f'Environment="{key}={escaped[key]}"' for key in sorted(escaped)]


def values_of(unit: str, section: str, key: str) -> list[str]:
    """All values of a key in the text of a unit file, continued lines joined, an empty one (a reset) among them."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*[#;].*\n?", "", unit))
    found, here = [], ""
    for line in map(str.strip, joined.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            here = line[1:-1]
            continue
        name, separator, value = line.partition("=")
        if separator and here == section and name.strip() == key:
            found.append(value.strip())
    return found


def parse_environment(units: Iterable[str]) -> dict[str, str]:
    """What Environment= of a unit and its drop-ins, in their order, come to."""
    env: dict[str, str] = {}
    for unit in units:
        for value in values_of(unit, "Service", "Environment"):
            if not value:
                env.clear()
            try:
                words = shlex.split(value)
            except ValueError:  # an open quote: systemd ignores the line, too
                continue
            for word in words:
                name, separator, content = word.replace("%%", "%").partition("=")
                if separator:
                    env[name] = content
    return env


def parse_environment_file(text: str) -> dict[str, str]:
    env = {}
    for line in text.replace("\\\n", "").splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith(("#", ";")):
            try:
                env[key.strip()] = "".join(shlex.split(value)) if value[:1] in ("'", '"') else value.strip()
            except ValueError:
                continue
    return env


def is_secret(key: str) -> bool:
    return bool(_SECRET.search(key))


def masked(env: Mapping[str, str]) -> dict[str, str]:
    """For the screen: logins in URLs blanked, and all of what is called a key, token or password."""
    return {key: "***" if is_secret(key) and value else mask_urls(value) for key, value in sorted(env.items())}
