# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a killed process leaves running: the docker commands it had started, and their containers of one command.

They would go on with the upgrade while somebody else goes back: an `up` starts the new release, a migration migrates.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project

__all__ = ["clear_leftovers"]

_SECONDS = 10


def clear_leftovers(project: Project) -> None:
    """End them. The lock of upgrades must be held, for then all of them are left over."""
    _end_clients(project.home)
    # By the name that Project.once() gives: an API that stands in for another one may be serving right now.
    listed = project.docker.output(["ps", "-a", "-q", "--filter", f"name=^{project.name}-once-"], 60).split()
    if listed:
        project.docker.run(["rm", "-f", *listed], 60)


def _end_clients(home: str) -> None:
    until = time.monotonic() + _SECONDS
    while True:
        found = [number for number in os.listdir("/proc") if number.isdigit() and _is_ours(number, home)]
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        if not found or time.monotonic() > until:
            return
        time.sleep(0.2)


def _is_ours(number: str, home: str) -> bool:
    """A compose command with the project directory that nobody writes by hand."""
    try:
        with open(f"/proc/{number}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().split("\0")
        with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
            dead = file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
    places = zip(words, words[1:])
    ours = any(
        word == "--project-directory" and (place == f"{home}/current" or place.startswith(f"{home}/releases/"))
        for word, place in places
    )
    return ours and not dead and "compose" in words
