# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds, loads, runs and closes the monitoring plugins, and calls their hooks so that none can disturb a call.

Plugins are loaded (main imported) when Dify's module is, run at the first call of a process, and closed at its end. A
forked child starts its own: what the parent's plugins hold (queues, threads, connections) is not the child's to use.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from . import counters
from .event import Event
from .manifest import HOOKS, Plugin, Refused

START_WAIT = 1.0  # a call that comes while the plugins start waits no longer, and goes on unseen
SLOW = 0.005  # seconds in one hook that are worth counting
DEFAULT = pathlib.Path(__file__).resolve().parent.parent / "plugins"


class Dispatcher:
    """The running plugins of one process."""

    __slots__ = ("_hooks", "alive", "plugins")

    def __init__(self, plugins: list[Plugin]) -> None:
        self.alive = True
        self.plugins = plugins
        self._hooks: dict[str, tuple[tuple[str, Callable[[Event], Any]], ...]] = {
            hook: tuple((f"{plugin.name}.{hook}", plugin.hooks[hook]) for plugin in plugins if hook in plugin.hooks)
            for hook in HOOKS
        }

    def fire(self, hook: str, event: Event) -> None:
        for name, function in self._hooks[hook]:
            began = monotonic()
            try:
                function(event)
            except (Exception, SystemExit) as exc:  # others belong to the caller: a gevent Timeout, a killed greenlet
                counters.failed(f"hook_errors.{name}", exc)
            if monotonic() - began > SLOW:
                counters.count(f"slow_hooks.{name}")


class _State:
    def __init__(self) -> None:
        self._lock: list[threading.Lock] = []
        self.loaded: list[Plugin] | None = None
        self.dispatcher: Dispatcher | None = None
        self.started = False
        self.closed = False

    @property
    def lock(self) -> threading.Lock:
        """Made at the first call: a worker of gunicorn is forked before gevent patches, and a lock from before it would
        stop every greenlet, the one that holds it among them."""
        if not self._lock:
            self._lock.append(threading.Lock())
        return self._lock[0]


_state = _State()
_parents: list[_State] = []  # kept, or their destructors would write the parent's buffers a second time
_exit_set = False


def folders() -> list[pathlib.Path]:
    named = os.environ.get("LLMOPS_MONITORING_PLUGINS")
    roots = [pathlib.Path(part) for part in named.split(os.pathsep) if part] if named else [DEFAULT]
    found: list[pathlib.Path] = []
    for root in roots:
        found.extend(sorted(path.parent for path in root.glob("*/plugin.json")))
    return found


def load() -> list[Plugin]:
    """Load every plugin there is; one that cannot be loaded is counted, said and left out."""
    if _state.loaded is None:
        _state.loaded = []
        for folder in folders():
            plugin, taken = Plugin(folder), [other.name for other in _state.loaded]
            if _safely(plugin, "load", taken):
                _state.loaded.append(plugin)
    return _state.loaded


def _safely(plugin: Plugin, step: str, *arguments: Any) -> bool:
    try:
        getattr(plugin, step)(*arguments)
    except Refused as exc:
        counters.count(f"plugins_refused.{plugin.folder.name}")
        counters.say(str(plugin.folder), f"{plugin.folder}: {exc}")
        return False
    except (Exception, SystemExit) as exc:
        counters.failed(f"plugin_errors.{plugin.folder.name}.{step}", exc)
        return False
    return True


def dispatcher() -> Dispatcher | None:
    """The running plugins; the first call of a process starts them, before its clock does."""
    state = _state
    if state.started:
        if state.closed:
            counters.count("unseen")
            counters.say("closed", "calls after the plugins were closed are not seen; counted, and not said again")
        return state.dispatcher
    if not state.lock.acquire(timeout=START_WAIT):
        counters.count("unseen")
        return None
    try:
        if not state.started:
            running = [plugin for plugin in load() if _safely(plugin, "run")]
            state.dispatcher = Dispatcher(running) if running else None
            state.started = True
            _at_exit()
    finally:
        state.lock.release()
    return state.dispatcher


def close() -> None:
    """Let every plugin send what it holds; calls that are still to come are not seen, and counted."""
    state = _state
    running = state.dispatcher
    if state.closed or running is None:
        return
    state.closed, state.dispatcher = True, None
    for plugin in running.plugins:
        _safely(plugin, "close")


def _at_exit() -> None:
    global _exit_set
    if _exit_set:
        return
    _exit_set = True
    atexit.register(close)
    _at_sigterm()
    signals = sys.modules.get("celery.signals")  # a prefork child of celery leaves by os._exit
    if signals is not None:
        signals.worker_process_shutdown.connect(_celery_exit, weak=False)


def _at_sigterm() -> None:
    """Where SIGTERM would end the process at once, let the plugins close first. Servers have a handler of their own.

    Only when the first call comes from the main thread: no other may set a handler.
    """
    with contextlib.suppress(ValueError):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminated)


def _terminated(_number: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Not here: a handler may run in gevent's hub, which cannot wait; not even for a Thread to start.
    _thread.start_new_thread(_close_and_die, ())


def _close_and_die() -> None:
    close()
    os.kill(os.getpid(), signal.SIGTERM)


def _celery_exit(**_arguments: Any) -> None:
    close()


def _after_fork() -> None:
    """In the child: forget the parent's plugins. Only loaded, never run, they are as good as new and serve again."""
    global _state
    parent = _state
    counters.reset()
    _state = _State()
    if parent.started:
        _parents.append(parent)
        if parent.dispatcher is not None:
            parent.dispatcher.alive = False
    elif not any(lock.locked() for lock in parent._lock):
        _state.loaded = parent.loaded


os.register_at_fork(after_in_child=_after_fork)
