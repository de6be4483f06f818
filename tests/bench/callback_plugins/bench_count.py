# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what a run really executes on its hosts: a template task, for one, is three module executions."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import resource
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: bench_count
type: aggregate
short_description: Counts module executions and seconds of a run
description:
  - Writes a JSON file named by the environment variable C(BENCH_RESULT) at the end of a run.
options: {}
author: llmops.stack contributors (@llmops)
"""

RESULT = pathlib.Path(os.environ["BENCH_RESULT"])
EXECUTED = RESULT.with_suffix(".executed")  # workers are processes of their own; appending a line is atomic


def _count_executions() -> None:
    """Wrap the one method that every module execution goes through, before the workers are forked."""
    execute = ActionBase._execute_module

    def counting(self: Any, module_name: Any = None, *args: Any, **kwargs: Any) -> Any:
        with EXECUTED.open("a") as out:
            out.write(f"{module_name or self._task.action}\n")
        return execute(self, module_name, *args, **kwargs)

    ActionBase._execute_module = counting


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bench_count"

    def __init__(self) -> None:
        super().__init__()
        EXECUTED.write_text("")
        _count_executions()
        self._started = time.monotonic()
        self._tasks: list[list[Any]] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._tasks.append([task.action, time.monotonic()])

    def v2_playbook_on_stats(self, stats: Any) -> None:
        ended = time.monotonic()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds: dict[str, float] = collections.defaultdict(float)
        for (action, begin), end in zip(self._tasks, [task[1] for task in self._tasks[1:]] + [ended]):
            seconds[action] += end - begin
        executed = EXECUTED.read_text().split()
        EXECUTED.unlink()
        RESULT.write_text(
            json.dumps(
                {
                    "executions": len(executed),
                    "modules": dict(collections.Counter(executed).most_common()),
                    "seconds": ended - self._started,
                    "cpu": sum(part.ru_utime + part.ru_stime for part in usage),
                    "action_seconds": dict(seconds),
                    "changed": sum(stats.changed.values()),
                    "failed": sum(stats.failures.values()) + sum(stats.dark.values()),
                }
            )
        )
