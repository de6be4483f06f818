# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What every step of an upgrade is given, and how it says that it could not do its part."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import mask

__all__ = ["Context", "Notes", "Options", "StepError"]


# Bytes that must be free for logs to be kept whole: what is short of room is the old release, which comes back.
_SHORT = 256 * 1024 * 1024
_END = 16 * 1024


class StepError(Exception):
    """A step could not be done.

    C(message) is one sentence with its full stop: what was expected, what was found. C(advice) is what to do before the
    next try, as sentences too. Neither holds a secret.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


@dataclass
class Options:
    """What the operator and the role decide, the same for every step."""

    timeout: float = 7200  # seconds for everything
    migration_timeout: float = 1800
    drain_seconds: float = 60
    health_deadline: float = 600
    url: str = "http://127.0.0.1"  # nginx, as the host itself reaches it
    plugin_daemon_url: str = "http://127.0.0.1:5002"
    secrets_file: str = ""
    session_file: str = ""
    app_key_file: str = ""  # key of the app that the chat of the health check uses; empty or missing: no chat
    model_servers: list[str] = field(default_factory=list)
    marketplace_url: str = ""
    plugins: list[Any] = field(default_factory=list)  # the role's dify_plugins
    plugin_timeout: float = 900


class Notes(Protocol):
    """The journal, as far as a step sees it: what it keeps for itself, for its undo and for a run that goes on."""

    def get(self, step: str, key: str, default: Any = None) -> Any: ...

    def put(self, step: str, key: str, value: Any) -> None: ...

    def step(self, name: str) -> str: ...


@dataclass
class Context:
    project: Project
    plan: Mapping[str, Any]
    options: Options
    journal: Notes
    folder: str  # evidence of this upgrade, 0700
    info: Mapping[str, Any] = field(default_factory=dict)  # what the module dify_info found before
    database: Any = None  # _dify_database.Database of the release in charge
    step: str = ""  # id of the step that runs
    deadline: float = 0.0  # moment of time.monotonic(); 0 is none
    secrets: frozenset[str] = frozenset()
    live: dict[str, Any] = field(default_factory=dict)  # what only this process can use, as an open snapshot
    beside: list[Future[None]] = field(default_factory=list)

    @property
    def old(self) -> str:
        return str(self.plan.get("from", ""))

    @property
    def new(self) -> str:
        return str(self.plan.get("to", ""))

    def remaining(self, most: float = 0.0) -> float:
        """Seconds left for everything, but at most that many. It is never below 1, so that an undo is not cut off."""
        left = self.deadline - time.monotonic() if self.deadline else self.options.timeout
        return max(1.0, min(left, most) if most else left)

    def late(self) -> bool:
        return bool(self.deadline) and time.monotonic() >= self.deadline

    def app_key(self) -> str:
        """Key of the app that the health check chats with; empty where there is none."""
        return _text(self.options.app_key_file)

    def secret(self, name: str) -> str:
        """One of the installation's secrets; empty where it is not kept."""
        try:
            return str(json.loads(_text(self.options.secrets_file)).get(name) or "")
        except (ValueError, AttributeError):
            return ""

    def log(self, text: str) -> None:
        """A line of steps.log among the evidence, without secrets. A full disk costs the line and not the upgrade."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"{stamp} {self.step or '-'}: {self.mask(text)}"
        path = os.path.join(self.folder, "steps.log")
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(handle, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def meanwhile(self, work: Callable[[], None]) -> None:
        """Let something be done while the steps go on; a later one calls catch_up() before it needs it."""
        pool = ThreadPoolExecutor(max_workers=1)
        self.beside.append(pool.submit(work))
        pool.shutdown(wait=False)

    def catch_up(self, quiet: bool = False) -> None:
        """Wait for it, and fail if it failed."""
        while self.beside:
            error = self.beside.pop(0).exception()
            if error is not None and not quiet:
                raise error

    def mask(self, text: str) -> str:
        return mask(text, self.secrets)

    def keep(self, name: str, text: str) -> str:
        """Put a text among the evidence, masked; returns its path. Where room is short it is the end of the text."""
        path = os.path.join(self.folder, name)
        if shutil.disk_usage(self.folder).free < _SHORT:
            text = text[-_END:]
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(self.mask(text))
        return path

    def recall(self, key: str, default: Any = None) -> Any:
        """What this step has noted in the journal, maybe in a process that is gone."""
        return self.journal.get(self.step, key, default)

    def remember(self, key: str, value: Any) -> None:
        """Note a JSON value in the journal before going on; undo and a later process find it with recall()."""
        self.journal.put(self.step, key, value)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
