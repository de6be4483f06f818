# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Work that goes on when whoever asked for it is gone.

A module ends with the connection over which it was started, or with Ctrl-C on the controller. So the work is done by a
child in a session of its own, and the module only waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

__all__ = ["ChildKilled", "in_child"]


class ChildKilled(Exception):
    """The child ended without a word."""


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work returns, as JSON allows it.

    Raises:
        ChildKilled: it was killed, or failed in a way that the work itself does not tell.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(work, reading, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise ChildKilled
    found: dict[str, Any] = json.loads(told)
    return found


def _be_the_child(work: Callable[[], dict[str, Any]], reading: int, writing: int) -> None:
    """Never returns: the caller's code after the fork belongs to the parent."""
    code = 1
    try:
        os.close(reading)
        os.setsid()
        # Ansible waits until nobody holds the module's output any more.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        told = json.dumps(work()).encode()
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(told)
        except BrokenPipeError:
            pass  # nobody waits any more; the journal has it all
        code = 0
    finally:
        os._exit(code)
