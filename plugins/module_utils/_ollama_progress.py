# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""How far a long run is, in a file that is written anew twice a second at most, for whoever shows it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections import deque

_EVERY = 0.5
# Seconds over which the speed is taken.
_WINDOW = 10.0


class Progress:
    def __init__(self, path: str = "") -> None:
        self.path = path
        self._lock = threading.Lock()
        self._written = 0.0
        self._window: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """Something else is counted from now on."""
        with self._lock:
            self._written = 0.0
            self._window.clear()

    def say(self, model: str, phase: str, completed: int, total: int, digest: str = "") -> None:
        now = time.monotonic()
        with self._lock:
            if not self.path or now - self._written < _EVERY:
                return
            self._written = now
            speed = self._speed(now, completed)
            note = {
                "model": model,
                "phase": phase,
                "digest": digest,
                "completed": completed,
                "total": total,
                "percent": min(100, 100 * completed // total) if total else 0,
                "speed": int(speed),
                "eta": int(max(0, total - completed) / speed) if speed >= 1 else -1,
            }
            # Nobody's pull fails because somebody's display does.
            with contextlib.suppress(OSError):
                self._write(json.dumps(note))

    def _speed(self, now: float, completed: int) -> float:
        if self._window and completed < self._window[-1][1]:
            self._window.clear()
        self._window.append((now, completed))
        while len(self._window) > 2 and now - self._window[0][0] > _WINDOW:
            self._window.popleft()
        then, before = self._window[0]
        return (completed - before) / (now - then) if now > then else 0.0

    def _write(self, text: str) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=".llmops-progress.", dir=os.path.dirname(self.path) or ".")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self.path)
        except OSError:
            os.unlink(temporary)
            raise
