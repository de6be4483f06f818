# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One plugin's process: started, listened to, started again after it died, and the calls that go through it."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from standin import daemon_protocol, faults
from standin.daemon_environment import PYTHON, own
from standin.daemon_log import Log
from standin.daemon_versions import Generation

HEARTBEAT_PATIENCE = 120.0
GONE_SECONDS = 0.25  # how soon a waiting call notices that its client left
PACKAGE_ROOT = str(Path(__file__).resolve().parents[1])
Event = dict[str, Any]


class StartFailed(Exception):
    """The process did not come up, with what an install task says about it."""


class Unprepared(Exception):
    """A call met an environment that is still being built, in a version that panics then."""


class Gone(ConnectionError):
    """The client left."""


class Runtime:
    def __init__(self, identifier: str, behaviour: Generation, log: Log) -> None:
        self.identifier = identifier
        self.prepared = False
        self.ever_up = False
        self.stopped = False
        self._behaviour = behaviour
        self._log = log
        self._directory = Path()
        self._process: subprocess.Popen[str] | None = None
        self._sessions: dict[str, queue.Queue[Event]] = {}
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._last_beat = 0.0
        self._failures = 0
        self._next_start = 0.0
        self._stderr = ""

    @property
    def alive(self) -> bool:
        return self._up.is_set() and self._process is not None and self._process.poll() is None

    def start(self, directory: Path) -> None:
        """Start the process without waiting for it."""
        self._directory = directory
        self.prepared = True
        # Like the real daemon's, plugins get all of its environment, keys and passwords included.
        environment = {**os.environ, "INSTALL_METHOD": "local"}
        environment.pop("PYTHONPATH", None)
        if own(directory):
            environment.update({"PYTHONPATH": PACKAGE_ROOT, "STANDIN_FAULTS": str(faults.path())})
        with self._lock:
            if self.stopped or (self._process is not None and self._process.poll() is None):
                return
            self._up.clear()  # whoever listened to the process before may not have seen its end yet
            try:
                self._process = subprocess.Popen(
                    [str(directory / PYTHON), "-m", "main"],
                    cwd=directory,
                    env=environment,
                    text=True,
                    bufsize=1,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                self._stderr = str(error)
                self._count_failure()
                return
        self._last_beat = time.monotonic()
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        self.obey_fault()

    def wait_up(self, progress: Callable[[str], None]) -> None:
        """Until the first heartbeat; raises StartFailed."""
        deadline = time.monotonic() + HEARTBEAT_PATIENCE
        told = False
        while not self._up.wait(0.2):
            if self._process is None or self._process.poll() is not None:
                # What the process said last is read to its end before it is quoted.
                time.sleep(0.3)
                raise StartFailed(f"failed to launch plugin: plugin failed to start: {self._stderr}\n")
            if time.monotonic() > deadline:
                raise StartFailed(
                    "timed out on waiting for plugin to be ready after 2m0s, please contract the administrator "
                    "to check the logs"
                )
            if not told and time.monotonic() > deadline - HEARTBEAT_PATIENCE + 5:
                progress("installing heartbeat, waiting for plugin to be ready...")
                told = True

    def tick(self) -> None:
        """The five-second look at the process: replace it if it is dead or silent."""
        if self.stopped or not self.prepared:
            return
        if self._process is not None and self._process.poll() is None:
            self.obey_fault()
            if time.monotonic() - self._last_beat > HEARTBEAT_PATIENCE:
                self._kill()
        elif faults.get("plugin", "plugin_daemon") != "dead" and time.monotonic() >= self._next_start:
            self.start(self._directory)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
        self._kill()

    def obey_fault(self) -> None:
        if faults.get("plugin", "plugin_daemon") in ("dead", "crashloop"):
            self._kill()

    def call(
        self, action: str, user: str, data: dict[str, Any], seconds: float, gone: Callable[[], bool]
    ) -> Iterator[Event]:
        """Events of one call: {"event": stream | error | end | no_instance | killed}. May raise Unprepared or Gone."""
        deadline = time.monotonic() + seconds
        self.obey_fault()
        if self._behaviour.dead_hangs:
            if not self.prepared and self._behaviour.unprepared == "empty":
                raise Unprepared
            # These versions wait for a process that is still to come, and never notice one that is gone.
            hopeless = not self.prepared or (self.ever_up and not self.alive)
            while hopeless or not self.alive:
                if time.monotonic() > deadline:
                    yield {"event": "killed"}
                    return
                if gone():
                    raise Gone
                time.sleep(min(GONE_SECONDS, max(deadline - time.monotonic(), 0.01)))
        elif not self.alive:
            yield {"event": "no_instance"}
            return
        fault = faults.get("plugin", "plugin_daemon")
        time.sleep(faults.seconds(fault))
        name = str(uuid.uuid4())
        line = daemon_protocol.request(name, action, user, data)
        yield from self._session(name, "" if fault == "hang" else line, deadline, gone)

    def _session(self, name: str, line: str, deadline: float, gone: Callable[[], bool]) -> Iterator[Event]:
        events: queue.Queue[Event] = queue.Queue()
        self._sessions[name] = events
        try:
            if not self._write(line) and not self._behaviour.dead_hangs:
                yield {"event": "no_instance"}
                return
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    yield {"event": "killed"}
                    return
                try:
                    event = events.get(timeout=min(left, GONE_SECONDS))
                except queue.Empty:
                    if gone():
                        raise Gone from None
                    continue
                yield event
                if event["event"] != "stream":
                    return
        finally:
            self._sessions.pop(name, None)

    def _write(self, line: str) -> bool:
        try:
            with self._lock:
                assert self._process is not None and self._process.stdin is not None
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=self._collect, args=(process,), daemon=True)
        errors.start()
        was_up = False
        for line in process.stdout:
            kind, session, data = daemon_protocol.event(line)
            if kind == "heartbeat":
                self._last_beat = time.monotonic()
                if not was_up:
                    was_up = True
                    self._failures = 0
                    self.ever_up = True
                    self._up.set()
                    self._log.write(
                        "INFO",
                        "subprocess.go:136",
                        "local runtime instance ready",
                        plugin=self.identifier.split("@")[0],
                        pid=process.pid,
                    )
                continue
            events = self._sessions.get(session)
            if kind and events is not None:
                events.put({"event": kind, "data": data})
        with self._lock:
            if process is self._process:  # and not one that was started since
                self._up.clear()
        process.wait()
        errors.join(1)
        if not self.stopped:
            self._log.write(
                "WARN", "instance.go:181", "plugin stdout reader reached eof", plugin=self.identifier.split("@")[0]
            )
            if not was_up:
                self._count_failure()

    def _collect(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self._stderr = process.stderr.read()[-2000:]

    def _count_failure(self) -> None:
        pauses = self._behaviour.restart_pauses
        self._failures += 1
        if pauses:
            self._next_start = time.monotonic() + pauses[min(self._failures, len(pauses)) - 1]

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            self._up.clear()
