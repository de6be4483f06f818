# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runtime did in this process: counted always, said on stderr once for each kind of failure.

Messages of exceptions may quote prompts, so only their type and place are said.
"""

from __future__ import annotations

import itertools
import os
import sys
from types import TracebackType

# No lock: the garbage collector may end a stream, and so count, in the middle of this very code. `next` of an
# itertools.count is one step for every thread, and its repr is the one way to read it without taking a number.
_counts: dict[str, itertools.count[int]] = {}
_said: set[str] = set()


def count(name: str, times: int = 1) -> None:
    counter = _counts.get(name)
    if counter is None:
        counter = _counts.setdefault(name, itertools.count())
    for _time in range(times):
        next(counter)


def counters() -> dict[str, int]:
    """What happened how often in this process.

    calls, ok, error, cancelled, unseen; hook_errors.<plugin>.<hook>, slow_hooks.<plugin>.<hook>;
    plugins_refused.<folder>, plugin_errors.<folder>.<step>; internal.<place>. Plugins add theirs as <plugin>.<what>.
    """
    return {name: int(repr(counter)[len("count(") : -1]) for name, counter in list(_counts.items())}


def failed(name: str, exc: BaseException) -> None:
    count(name)
    say(name, f"{name}: {type(exc).__name__}{_place(exc.__traceback__)}; counted, and not said again")


def say(key: str, text: str) -> None:
    if key in _said:
        return
    _said.add(key)
    try:
        sys.stderr.write(f"llmops-monitoring[{os.getpid()}]: {text}\n")
    except (OSError, ValueError, AttributeError):
        count("internal.stderr")


def reset() -> None:
    """A forked child counts from nothing."""
    _counts.clear()
    _said.clear()


def _place(trace: TracebackType | None) -> str:
    if trace is None:
        return ""
    while trace.tb_next:
        trace = trace.tb_next
    return f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
