# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of ollama_model: a long pull shows how far it is.

A module says nothing until it ends. So the module is first asked to do all that is quick. Only if a model has to be
fetched, it is started again as an asynchronous job, which writes its progress to a file; one cheap command every second
or two reads that file and the job's. Whatever ends the wait here, a signal or a timeout of the task, ends the job, too.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shlex
import signal
import threading
import time
import typing as t
from contextlib import contextmanager

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.llmops.stack.plugins.module_utils._ollama_line import is_same, progress_line

display = Display()

INTERVAL = 5.0  # seconds between two lines about one host
REPEAT = 30.0  # seconds after which a line is repeated although nothing has changed
POLLS = (0.3, 0.7, 1.0, 2.0)  # seconds before the first looks; then always the last
UNREACHABLE = 120.0  # seconds for which a host may be out of reach while its job goes on
# Seconds beyond the module's own deadlines after which its job is ended from outside. Those bound pulls and answers;
# hashing what was there before has none, and a slow disk reads 40 GB in ten minutes.
GRACE = 3600
LATE = 60  # seconds that the watcher on the host has for it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MARK = "--llmops--"
_TOKEN = "LLMOPS_JOB"  # noqa: S105  # a name in the job's environment, by which its processes are found


class _Ended(BaseException):
    """A signal that ends this worker; not an Exception, so that nothing on the way takes it for a failed task."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Job:
    """What is known about the job on the host."""

    def __init__(self, token: str, folder: str) -> None:
        self.token = token
        # Not expanded here: where ~ is, the module and a shell on the host agree, and they alone know.
        self.progress = f"{folder.rstrip('/')}/llmops-{token}.progress"
        self.results = ""

    def watch(self) -> str:
        """Whether it lives is asked first: a job writes its result before it goes."""
        return (
            f"grep -qsa '{_TOKEN}={self.token}' /proc/[0-9]*/environ && echo alive; echo {_MARK}; "
            f"cat {_quoted(self.results)} 2>/dev/null; echo; echo {_MARK}; "
            f"cat {_quoted(self.progress)} 2>/dev/null; true"
        )

    def end(self) -> str:
        """Ends the job's own process group. The watcher above it has another one: it notices and removes the
        temporary directory."""
        return (
            f"for f in $(grep -lsa '{_TOKEN}={self.token}' /proc/[0-9]*/environ); do p=${{f#/proc/}}; "
            f"p=${{p%/environ}}; g=$(sed 's/.*) //' /proc/$p/stat 2>/dev/null | cut -d' ' -f3); "
            '[ "$g" = "$p" ] && kill -s TERM -- "-$p"; done; true'
        )

    def remove(self) -> str:
        files = [self.progress, *([self.results, f"{self.results}.tmp"] if self.results else [])]
        return "rm -f " + " ".join(map(_quoted, files))


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        if self._task.async_val:
            # The operator waits for the job himself.
            native = self._connection.has_native_async
            result.update(self._execute_module(task_vars=task_vars, wrap_async=not native))
            return result
        if self._task.check_mode or self._task.args.get("defer") or self._connection.has_native_async:
            result.update(self._execute_module(task_vars=task_vars))
            return result
        first = self._execute_module(module_args={**self._task.args, "defer": True}, task_vars=task_vars)
        if first.get("failed") or not first.get("deferred"):
            result.update(_as_direct(first))
            return result
        result.update(_as_direct(_merged(first, self._pull(first, task_vars))))
        return result

    def _pull(self, first: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        given = first.get("invocation", {}).get("module_args", {})
        answers = float(given.get("probe_deadline") or 0) * len(first.get("models") or ())
        limit = math.ceil(float(given.get("deadline") or 0) + answers) + GRACE
        job = _Job(secrets.token_hex(8), self.get_shell_option("async_dir", default="~/.ansible_async"))
        with _signals_raise():
            try:
                started = self._start(job, limit, task_vars)
                if not job.results:
                    return started
                return self._wait(job, limit, str(task_vars.get("inventory_hostname", "")), task_vars)
            except BaseException:
                with _signals_ignored():
                    self._command(job.end())
                raise
            finally:
                with _signals_ignored():
                    self._command(job.remove())

    def _start(self, job: _Job, limit: int, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        arguments = {**self._task.args, "progress_file": job.progress}
        environment = self._task.environment
        self._task.environment = [*(environment or []), {_TOKEN: job.token}]
        self._task.async_val = limit
        try:
            started = self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=True)
        finally:
            self._task.environment = environment
            self._task.async_val = 0
        job.results = "" if started.get("failed") else str(started.get("results_file") or "")
        if not job.results and not started.get("failed"):
            started.update(
                failed=True, msg="Ansible started the pull as a job and did not say where its result will be."
            )
        return started

    def _wait(self, job: _Job, limit: int, host: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        began = reached = time.monotonic()
        screen = _Screen(host, bool(self._task.no_log))
        looks = 0
        while True:
            time.sleep(POLLS[min(looks, len(POLLS) - 1)])
            looks += 1
            now = time.monotonic()
            try:
                answer = self._low_level_execute_command(job.watch())
                alive, result, progress = _parts(answer["stdout"])
                reached = now
            except (AnsibleConnectionFailure, ValueError) as exc:
                if now - reached > UNREACHABLE:
                    raise AnsibleConnectionFailure(
                        f"{host} has been out of reach for {now - reached:.0f} s while it pulls a model: {exc}"
                    ) from exc
                self._reconnect()
                continue
            if result and not result.get("started"):
                return self._finished(job, host, limit, task_vars)
            if not alive:
                return _failed(
                    f"The job that pulls on {host} is gone without a result: the host was rebooted, or something "
                    "killed it (look for it in journalctl). What it has fetched is kept: run again."
                )
            if now - began > limit + LATE:
                self._command(job.end())
                return _failed(_late(host, limit))
            screen.show(progress, now)

    def _finished(self, job: _Job, host: str, limit: int, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """The result as Ansible itself reads it, so that warnings and what is masked are those of a direct run."""
        folder, job_id = os.path.split(job.results)
        arguments = {"jid": job_id, "mode": "status", "_async_dir": folder}
        result = self._execute_module(
            module_name="ansible.legacy.async_status", module_args=arguments, task_vars=task_vars
        )
        for name in ("ansible_job_id", "started", "finished", "results_file"):
            result.pop(name, None)
        if result.get("failed") and "invocation" not in result:
            if "child_pid" in result:
                return _failed(_late(host, limit))
            return _failed(
                f"The job that pulls on {host} ended without a result ({_last_words(result)}). If the host was short "
                "of memory, the kernel's log (dmesg) says so. What it has fetched is kept: run again."
            )
        return result

    def _command(self, command: str) -> None:
        """For what is put in order afterwards: nothing of it may hide how the task ended."""
        try:
            self._low_level_execute_command(command)
        except Exception as exc:
            display.vvv(f"ollama_model cannot tidy up: {exc}")

    def _reconnect(self) -> None:
        try:
            self._connection.reset()
        except Exception as exc:  # the next look says whether it matters
            display.vvv(f"ollama_model cannot reset its connection: {exc}")


class _Screen:
    """Lines about one host, not more often than they are of use."""

    def __init__(self, host: str, silent: bool) -> None:
        self.host = host
        self.silent = silent
        self.last: dict[str, t.Any] = {}
        self.moved = self.said = float("-inf")
        # Callbacks for programs own the standard output.
        self.stderr = C.DEFAULT_STDOUT_CALLBACK.rsplit(".", 1)[-1] in ("json", "jsonl")

    def show(self, progress: dict[str, t.Any], now: float) -> None:
        if self.silent or not progress:
            return
        if not is_same(progress, self.last):
            self.last, self.moved = progress, now
        still = now - self.moved
        if now - self.said >= (REPEAT if still >= INTERVAL else INTERVAL):
            self.said = now
            display.display(progress_line(self.host, progress, still if still >= REPEAT else 0.0), stderr=self.stderr)


@contextmanager
def _signals_raise() -> t.Iterator[None]:
    """An Ansible worker dies of a signal at once, and would leave its job behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: t.Any) -> t.NoReturn:
        for one in _SIGNALS:  # Ansible sends a second one at once
            signal.signal(one, signal.SIG_IGN)
        raise _Ended(number)

    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    ended: _Ended | None = None
    try:
        yield
    except _Ended as exc:
        ended = exc
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        os.kill(os.getpid(), ended.number)
        raise KeyboardInterrupt


@contextmanager
def _signals_ignored() -> t.Iterator[None]:
    """For what must be done to the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quoted(path: str) -> str:
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _parts(text: str) -> tuple[bool, dict[str, t.Any], dict[str, t.Any]]:
    """Alive, result and progress. A shell that greets stands before the first mark and does no harm."""
    alive, result, progress = text.split(_MARK)
    return "alive" in alive.split(), _decoded(result), _decoded(progress)


def _decoded(text: str) -> dict[str, t.Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _merged(first: dict[str, t.Any], last: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the first run has done and seen belongs to the result, too: it removes what breaks the server's lists."""
    last["changed"] = bool(last.get("changed") or first.get("changed"))
    known = list(last.get("warnings") or ())
    missed = [one for one in first.get("warnings") or () if one not in known]
    if missed:
        last["warnings"] = [*missed, *known]
    healed = {one.get("name"): one.get("healed") or () for one in first.get("models") or ()}
    pairs = [(last, first.get("healed") or ())]
    pairs += [(model, healed.get(model.get("name"), ())) for model in last.get("models") or ()]
    for result, before in pairs:
        missed = [one for one in before if one not in (result.get("healed") or ())]
        if missed:
            result["healed"] = [*missed, *(result.get("healed") or ())]
            last["changed"] = True
    if first.get("diff") and last.get("diff"):
        last["diff"]["before"] = first["diff"]["before"]
    return last


def _as_direct(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """Options that only this plugin sets are not the operator's."""
    arguments = result.get("invocation", {}).get("module_args")
    if isinstance(arguments, dict):
        arguments.update(defer=False, progress_file=None)
    return result


def _failed(message: str) -> dict[str, t.Any]:
    return {"failed": True, "changed": False, "msg": message}


def _late(host: str, limit: int) -> str:
    return (
        f"The job that pulls on {host} did not end within {limit} s, although the module should have given up before. "
        "What it has fetched is kept: run again, with a greater deadline if the line is slow."
    )


def _last_words(result: dict[str, t.Any]) -> str:
    for name in ("stderr", "outdata", "data", "msg"):
        lines = [line.strip() for line in str(result.get(name) or "").splitlines() if line.strip()]
        if lines:
            return lines[-1][:200]
    return "it says nothing"
