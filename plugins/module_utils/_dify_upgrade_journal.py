# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an upgrade has begun and done, on disk before it is done, and the lock that one process at a time holds.

The journal of the last upgrade stays at C(<home>/.llmops-upgrade.json) when it is over: it says what rollback.yml would
go back to. A journal in one of the phases of UNFINISHED that nobody holds the lock for is what a killed process left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

__all__ = ["FILE", "LOCK", "UNFINISHED", "Busy", "Journal", "locked"]

FILE = ".llmops-upgrade.json"
LOCK = ".llmops-upgrade.lock"

# running: the old release can be had back without a loss, and will be. proved: the new release serves; what is left is
# to be finished. rolling_back: on the way back. done and rolled_back: nothing is left to do.
RUNNING, PROVED, ROLLING_BACK, DONE, ROLLED_BACK = "running", "proved", "rolling_back", "done", "rolled_back"
UNFINISHED = (RUNNING, PROVED, ROLLING_BACK)

_KEPT = ("id", "kind", "from", "to", "from_head", "to_head", "began", "folder", "backup", "phase")

BEGUN, FINISHED, UNDONE = "begun", "done", "undone"


class Busy(Exception):
    """Another process holds the lock and did not give it back in time."""


@contextlib.contextmanager
def locked(home: str, seconds: float = 0.0) -> Iterator[bool]:
    """Hold the lock of upgrades, backups and restores of one home; wait so many seconds for whoever holds it.

    Yields:
        Whether it had to wait. The lock goes with the process, however that ends.
    """
    until = time.monotonic() + seconds
    waited = False
    with open(os.open(os.path.join(home, LOCK), os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise Busy from None
                waited = True
                time.sleep(0.5)
        yield waited


class Journal:
    """The state of one upgrade. Every change is on disk before the method returns, see insist()."""

    def __init__(self, home: str, state: Mapping[str, Any] | None = None) -> None:
        self.path = os.path.join(home, FILE)
        self.strict = True  # a change that cannot be written is an error
        self.state: dict[str, Any] = dict(state or {})

    @classmethod
    def read(cls, home: str) -> Journal:
        """The journal of the last upgrade; empty where there was none."""
        try:
            with open(os.path.join(home, FILE), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            found = {}
        return cls(home, found if isinstance(found, dict) else {})

    @classmethod
    def begin(cls, home: str, **what: Any) -> Journal:
        """A new one, in place of that of an upgrade that is over. What rollback.yml would go back to is kept in it."""
        done = cls.read(home).last_done()
        previous = {key: done[key] for key in _KEPT if key in done}
        state = {"phase": RUNNING, "step": "", "message": "", "steps": [], "notes": {}, "previous": previous, **what}
        journal = cls(home, state)
        journal.save()
        return journal

    def last_done(self) -> dict[str, Any]:
        """The last upgrade that arrived: this one, or the one before it. Empty where there was none."""
        found: dict[str, Any] = self.state if self.phase == DONE else self.state.get("previous") or {}
        return found

    @property
    def phase(self) -> str:
        return str(self.state.get("phase", ""))

    @property
    def unfinished(self) -> bool:
        return self.phase in UNFINISHED

    def save(self) -> None:
        try:
            write_atomically(self.path, json.dumps(self.state, indent=1) + "\n", 0o600)
        except OSError:
            if self.strict:
                raise

    def insist(self, strict: bool) -> None:
        """On the way back a full disk is no reason to stop: any phase but the last ones leads back, and undoing is
        done twice without harm. So what was not written costs the next run some time, and nothing else."""
        self.strict = strict

    def update(self, **what: Any) -> None:
        self.state.update(what)
        self.save()

    # -- steps, in the order in which they were begun

    def step(self, name: str) -> str:
        """What is known of a step: begun, done, undone, or nothing."""
        return next((one["state"] for one in self.state["steps"] if one["id"] == name), "")

    def mark(self, name: str, state: str, **more: Any) -> None:
        found = next((one for one in self.state["steps"] if one["id"] == name), None)
        if found is None:
            found = {"id": name}
            self.state["steps"].append(found)
        found.update(state=state, **more)
        self.update(step=name)

    def to_undo(self) -> list[str]:
        """Steps that left something behind, the last one first. One that was only begun may have done all of it."""
        return [one["id"] for one in reversed(self.state["steps"]) if one["state"] in (BEGUN, FINISHED)]

    # -- what steps note for themselves

    def get(self, step: str, key: str, default: Any = None) -> Any:
        return self.state["notes"].get(step, {}).get(key, default)

    def put(self, step: str, key: str, value: Any) -> None:
        self.state["notes"].setdefault(step, {})[key] = value
        self.save()
