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

__all__ = ["clear_leftovers", "mark"]

_SECONDS = 10
# In the environment of all that a machine starts. It shows in /proc with what is started later, so never with itself.
_MARK = "LLMOPS_STACK_UPGRADE"


def mark(home: str) -> None:
    """Let the commands that this process starts be known as those of an upgrade."""
    os.environ[_MARK] = home


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
    """A program that a machine of this home has started; people type the same commands."""
    try:
        with open(f"/proc/{number}/environ", encoding="utf-8", errors="replace") as file:
            values = file.read().split("\0")
        with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
            dead = file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
    return f"{_MARK}={home}" in values and not dead
