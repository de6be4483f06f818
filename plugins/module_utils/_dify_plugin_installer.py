# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Plugins installed for whole workspaces by the plugin daemon itself, with its key and without anybody's login.

What is believed is the daemon's list of a workspace and an answer of the plugin's process. A task is only waited for:
it can succeed without effect.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import Daemon, DaemonError, decode
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_daemon import PluginDaemon
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Installed, Wanted, parse_name
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_texts import (
    clean,
    explain_task,
    not_listed,
    stuck,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import StepError
from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError

__all__ = ["Fetched", "Installer"]

POLL_SECONDS = 0.5
# A task that says success and a list without the plugin: the rows come within moments, or never.
SETTLE_SECONDS = 5.0
UPLOAD_SECONDS = 120.0
# At a time: each one is an installer that fetches and compiles.
AT_ONCE = 4


@dataclass(frozen=True)
class Fetched:
    """A package that lies on this host."""

    identifier: str
    path: str
    source: str  # marketplace | package

    @property
    def wanted(self) -> Wanted:
        return parse_name(self.identifier)


@dataclass
class _Task:
    tenant: str
    package: Fetched
    id: str
    succeeded: float = 0.0  # when the task said so


class Installer:
    def __init__(self, url: str, key: str, log: Callable[[str], None], timeout: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._log = log
        self._timeout = timeout
        self._http = Http()
        self._daemon = Daemon(self._http, self._url, key, timeout)
        self._plugins = PluginDaemon(self._url, key, timeout)
        self._uploaded: set[str] = set()
        self._patience = 0.0

    def await_daemon(self, seconds: float) -> None:
        """Until the daemon answers and takes the key.

        Raises:
            StepError: it did not in time.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                self._daemon.health()
                self._daemon.check_key()
                return
            except DaemonError as exc:
                said = PluginDaemon.explain(exc.cause, exc.message)
                if exc.cause == "unauthorized":
                    raise StepError(f"The plugin daemon of the new release does not take its own key: {said}") from None
            except HttpError as exc:
                said = str(exc)
            if time.monotonic() > until:
                raise StepError(f"The plugin daemon of the new release did not answer within {seconds:.0f} s: {said}.")
            time.sleep(POLL_SECONDS)

    def installed(self, tenant: str) -> dict[str, Installed]:
        return {one.plugin: one for one in map(Installed.of, self._daemon.installed(tenant))}

    def provide(self, wanted: Mapping[str, Sequence[Fetched]], seconds: float) -> None:
        """Every workspace has these plugins, in whatever version it has them already, and their processes answer.

        Raises:
            StepError: which one is not there, why, and what to do.
        """
        self._patience = seconds
        until = time.monotonic() + seconds
        try:
            self._install(wanted, until)
            self._await_life(wanted, until)
        except DaemonError as exc:
            raise StepError(f"The plugin daemon refused: {PluginDaemon.explain(exc.cause, exc.message)}") from None
        except HttpError as exc:
            raise StepError(f"The plugin daemon went away while plugins were installed: {exc}.") from None

    def _install(self, wanted: Mapping[str, Sequence[Fetched]], until: float) -> None:
        missing = [
            (tenant, package)
            for tenant, packages in sorted(wanted.items())
            for there in [self.installed(tenant)]
            for package in packages
            if package.wanted.plugin not in there
        ]
        # A package once with all its work; for further workspaces the daemon then only writes rows.
        first: dict[str, tuple[str, Fetched]] = {}
        for tenant, package in missing:
            first.setdefault(package.identifier, (tenant, package))
        for group in _groups(list(first.values()), AT_ONCE):
            self._follow([self._start(*one) for one in group], until)
        rest = [one for one in missing if one not in first.values()]
        self._follow([self._start(*one) for one in rest], until)
        if missing:
            self._log(f"installed for {len(wanted)} workspaces: {', '.join(sorted(first))}")

    def _start(self, tenant: str, package: Fetched) -> _Task:
        self._upload(tenant, package)
        body = {
            "plugin_unique_identifiers": [package.identifier],
            "source": package.source,
            "metas": [{"plugin_unique_identifier": package.identifier} if package.source == "marketplace" else {}],
        }
        data = self._post(tenant, "install/identifiers", body, max(self._timeout, 30.0))
        return _Task(tenant, package, str((data or {}).get("task_id") or ""))

    def _upload(self, tenant: str, package: Fetched) -> None:
        """The daemon knows by itself which signatures it wants; it keeps a package for all workspaces."""
        if package.identifier in self._uploaded:
            return
        with open(package.path, "rb") as file:
            content = file.read()
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="verify_signature"\r\n\r\nfalse\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="dify_pkg"; filename="plugin.difypkg"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body = head + content + f"\r\n--{boundary}--\r\n".encode()
        try:
            data = self._post(
                tenant, "install/upload/package", body, UPLOAD_SECONDS, f"multipart/form-data; boundary={boundary}"
            )
        except DaemonError as exc:
            raise StepError(
                f"The plugin daemon does not take the package of {package.wanted.text}: {clean(exc.message)}.",
                "An unsigned package needs dify_plugin_signatures: false or a key in dify_plugin_public_keys; one that "
                "is too large needs dify_plugin_max_mb.",
            ) from None
        found = str((data or {}).get("unique_identifier") or "")
        if found != package.identifier:
            raise StepError(
                f"The package of {package.wanted.text} is not what it was fetched as: expected {package.identifier}, "
                f"the plugin daemon read {found or 'nothing'}.",
                "The marketplace or a mirror serves another file under that name: compare the checksums.",
            )
        self._uploaded.add(package.identifier)

    def _follow(self, tasks: list[_Task], until: float) -> None:
        waiting = list(tasks)
        while waiting:
            waiting = [one for one in waiting if not self._is_there(one)]
            for one in waiting:
                self._judge(one, until)
            if waiting:
                time.sleep(POLL_SECONDS)

    def _is_there(self, task: _Task) -> bool:
        return task.package.wanted.plugin in self.installed(task.tenant)

    def _judge(self, task: _Task, until: float) -> None:
        """A task that cannot bring its plugin any more."""
        subject = f"{task.package.wanted.text} in workspace {task.tenant}"
        state = self._state(task)
        status, message = str(state.get("status") or ""), _message(state)
        if status == "failed":
            raise StepError(explain_task(subject, message))
        now = time.monotonic()
        # Without a task everything was there already; a task that is gone was finished.
        if status == "success" or not state:
            task.succeeded = task.succeeded or now
            if now - task.succeeded > SETTLE_SECONDS:
                raise StepError(not_listed(subject))
        if now > until:
            raise StepError(stuck(subject, self._patience, status, message))

    def _state(self, task: _Task) -> dict[str, Any]:
        if not task.id:
            return {}
        url = f"{self._url}/plugin/{quote(task.tenant)}/management/install/tasks/{quote(task.id)}"
        answer = self._http.request("GET", url, self._timeout, {"X-Api-Key": self._key})
        try:
            data = decode(answer.status, answer.text)
        except DaemonError:
            return {}
        return data if isinstance(data, dict) else {}

    def _await_life(self, wanted: Mapping[str, Sequence[Fetched]], until: float) -> None:
        """An answer from the process of each model plugin. One process serves all workspaces."""
        seen: set[str] = set()
        for tenant, packages in sorted(wanted.items()):
            there = self.installed(tenant)
            for package in packages:
                found = there.get(package.wanted.plugin)
                if found is None:
                    raise StepError(not_listed(f"{package.wanted.text} in workspace {tenant}"))
                if found.identifier in seen or not found.provider:
                    continue
                seen.add(found.identifier)
                self._await_process(tenant, found, until)

    def _await_process(self, tenant: str, found: Installed, until: float) -> None:
        while True:
            trouble = self._plugins.sign_of_life(tenant, found)
            if trouble is None:
                return
            if not PluginDaemon.may_pass(trouble) or time.monotonic() > until:
                raise StepError(
                    f"The plugin {found.plugin} {found.version} is installed and does not answer: "
                    f"{PluginDaemon.explain(*trouble)}"
                )
            time.sleep(POLL_SECONDS)

    def _post(self, tenant: str, route: str, body: Any, seconds: float, kind: str = "") -> Any:
        headers = {"X-Api-Key": self._key, **({"Content-Type": kind} if kind else {})}
        url = f"{self._url}/plugin/{quote(tenant)}/management/{route}"
        answer = self._http.request("POST", url, seconds, headers, body)
        return decode(answer.status, answer.text)


def _message(state: Mapping[str, Any]) -> str:
    told = [one for one in state.get("plugins") or [] if isinstance(one, dict)]
    failed = [one for one in told if one.get("status") == "failed"] or told
    return str(failed[0].get("message") or "") if failed else ""


def _groups(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
