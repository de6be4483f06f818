"""Run on a node: SIGKILLs whoever holds the lock of upgrades as soon as the journal says that a step was begun.

usage: killer.py HOME STEP SECONDS     STEP "backup": whoever holds the lock while no upgrade is under way; a phase
                                       ("rolling_back"): the upgrade that is in it, be it an older one that goes on

It waits on the node, in one process, because asking from outside takes longer than some steps do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

UNFINISHED = ("running", "proved", "rolling_back")


def journal(home: str) -> dict[str, Any]:
    try:
        with open(f"{home}/.llmops-upgrade.json", encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def holder(home: str) -> int:
    """The process that holds the lock; 0 where nobody does."""
    try:
        inode = os.stat(f"{home}/.llmops-upgrade.lock").st_ino
    except OSError:
        return 0
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                return int(words[4])
    return 0


def parent(process: int) -> int:
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def begun(home: str, step: str, past: str) -> bool:
    state = journal(home)
    if step == "backup":
        return state.get("phase") not in UNFINISHED
    if step in UNFINISHED:
        return bool(state.get("phase") == step)
    if state.get("id") == past or state.get("phase") not in UNFINISHED:
        return False
    return any(one["id"] == step for one in state.get("steps", ()))


def main() -> int:
    home, step, seconds = sys.argv[1:4]
    past = str(journal(home).get("id", ""))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        process = holder(home)
        if process > 1 and begun(home, step, past):
            if step != "backup":
                # The module that waits for an upgrade would bring it to its end at once.
                os.kill(parent(process), signal.SIGKILL)
            os.kill(process, signal.SIGKILL)
            print(f"killed {process} in {step}")
            return 0
        time.sleep(0.003)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
