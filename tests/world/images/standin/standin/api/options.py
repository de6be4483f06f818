# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a flask command as click takes them: --name value, --name=value, flags, and questions for what is left."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence


class Usage(Exception):
    """What click says before it ends with 2."""


class Aborted(Exception):
    """A question that nobody answers, or answers with no."""


def parse(arguments: Sequence[str], texts: Sequence[str] = (), flags: Sequence[str] = ()) -> dict[str, str]:
    """The given options by name; a flag's value is "true"."""
    found: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        name, given, value = waiting.pop(0).partition("=")
        if name in flags:
            found[name] = "true"
        elif name in texts:
            if not given and not waiting:
                raise Usage(f"Option '{name}' requires an argument.")
            found[name] = value if given else waiting.pop(0)
        else:
            kind = "No such option" if name.startswith("-") else "Got unexpected extra argument"
            raise Usage(f"{kind}: {name}" if name.startswith("-") else f"{kind} ({name})")
    return found


def prompted(arguments: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Options that are asked for when they are not given."""
    found = parse(arguments, tuple(defaults))
    for name, default in defaults.items():
        if name not in found:
            found[name] = ask(name.lstrip("-").replace("_", " ").capitalize(), default)
    return found


def ask(question: str, default: str) -> str:
    shown = f"{question} [{default}]: " if default else f"{question}: "
    sys.stdout.write(shown)
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise Aborted
    return line.strip() or default
