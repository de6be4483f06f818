# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Bring running services to what the current release says, without a request that fails.

The api and the web pages: a second container is started beside the first, proves itself, and nginx is pointed at it;
the first one finishes its calls, is replaced, and takes over again. Everything else in the way of a request (the plugin
daemon, a database): at a moment without calls new requests are let wait in front of nginx for the seconds that the
change takes, instead of failing.

It converges: whatever a process that was killed has left behind, calling it again ends in the same state, and after the
link `current` was switched back it ends in that of the old release.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from ansible_collections.llmops.stack.plugins.module_utils._dify_connections import connections, drain
from ansible_collections.llmops.stack.plugins.module_utils._dify_due import due, fingerprints
from ansible_collections.llmops.stack.plugins.module_utils._dify_front import Front, FrontError
from ansible_collections.llmops.stack.plugins.module_utils._dify_handover_proof import NotProved, prove, prove_plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError, last_line

__all__ = ["BESIDE", "Handover", "drain", "handover", "start"]

# Services that can run twice for a while, and their ports. They keep nothing between two requests.
BESIDE = {"api": 5001, "web": 3000}
_NGINX = "nginx"
_DAEMON = "plugin_daemon"
# They take work from a queue, so nobody notices that they are away; each finishes what it has begun.
_FROM_QUEUE = ("worker", "worker_beat")
_ONE_SHOT = ("init_permissions",)
# Whoever needs them waits for their health check. The first query after it may still meet a connection that is gone.
_DATA = ("db", "db_postgres", "db_mysql", "redis")
_NEXT = "llmops.stack.next"  # label of a container beside
_HOLD = 45.0  # seconds for which requests may have to wait; limits of browsers and proxies begin at 60
_QUIET = 15.0  # of them: for calls that were begun before
_LOOK = 60.0


def handover(ctx: Context, services: Iterable[str] = ()) -> list[str]:
    """Replace these services, or all that differ from the current release.

    Returns:
        The services that were replaced.

    Raises:
        StepError: a new container did not prove itself; what served before serves on.
    """
    try:
        return Handover(ctx).run(list(services))
    except (DockerError, FrontError) as exc:
        raise StepError(f"{str(exc)[:1].upper()}{str(exc)[1:]}.", "Run it again when that is mended.") from None


def start(ctx: Context) -> list[str]:
    """The same where nobody is served, so that there is nothing to hand over: everything at once."""
    try:
        return Handover(ctx).start()
    except (DockerError, FrontError) as exc:
        raise StepError(f"{str(exc)[:1].upper()}{str(exc)[1:]}.", "Run it again when that is mended.") from None


class Handover:
    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.project = ctx.project
        self.docker = ctx.project.docker
        self.front = Front(ctx.project)
        self.trouble = ""
        self.version = os.path.basename(os.path.realpath(os.path.join(ctx.project.home, "current")))

    def run(self, services: Sequence[str]) -> list[str]:
        before = self._state()
        self._sweep()
        wanted = [name for name in due(self.project, services) if name not in _ONE_SHOT]
        in_the_way = [name for name in wanted if name not in (*BESIDE, *_FROM_QUEUE, _NGINX)]
        for name in BESIDE:
            if name in wanted:
                self._replace(name, with_others=in_the_way)
            elif not services or name in services:
                self._tidy(name)
        queue = [name for name in _FROM_QUEUE if name in wanted]
        if queue:
            self._up(queue, ["--no-deps", "--timeout", str(int(self.ctx.options.drain_seconds))])
        if in_the_way:
            self._swap(in_the_way)
        if _NGINX in wanted:
            self.ctx.log("nginx itself changes: for about a second nobody answers")
            self._up([_NGINX], ["--no-deps", "--timeout", "2"])
        if not services:
            self._up([], ["--remove-orphans"])
        touched = self._touched(before)
        if touched and _NGINX not in touched:
            self.front.reload()
            missing = self.front.missing()
            if missing and not self.trouble:
                self.trouble = f"nginx cannot find {', '.join(missing)}: no such container runs."
        if self.trouble:
            raise StepError(
                f"Not all of Dify {self.version} got well after it was replaced. {self.trouble}",
                "What runs otherwise is what the release says.",
            )
        return touched

    def start(self) -> list[str]:
        before = self._state()
        self.project.up((), self.ctx.remaining(), extra=["--remove-orphans"])
        touched = self._touched(before)
        # An nginx that stayed knows addresses of containers that are gone.
        if touched and _NGINX not in touched and self._nginx_runs():
            self.front.reload()
        return touched

    def _touched(self, before: dict[str, tuple[str, str]]) -> list[str]:
        after = self._state()
        return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))

    def _state(self) -> dict[str, tuple[str, str]]:
        return {one.service: (one.id, one.started) for one in self.project.containers() if one.service not in _ONE_SHOT}

    def _sweep(self) -> None:
        """Take away what a killed process has started and not proved, before nginx asks for a name that leads there."""
        beside = [one for service in BESIDE for one in self._beside(service)]
        pointed = self.front.pointed().values() if beside else ()
        for one in beside:
            if not one.running or self.project.address(one.name) not in pointed:
                self.docker.run(["rm", "-f", one.id], _LOOK)

    # -- beside

    def _replace(self, service: str, with_others: Sequence[str]) -> None:
        first = self.project.container(service)
        beside = self._beside(service)
        if first is None or not (first.running or beside):
            self._up([service])  # nothing runs that could go on serving
            return
        # Named after its definition: one that a run for another release or other settings has left is not taken for it.
        name = f"{self.project.name}-{service}-next-{fingerprints(self.project)[service][:8]}"
        try:
            address = self._start_beside(service, name, beside)
        except NotProved as exc:
            said = self._give_up(service, name)
            if _needs(exc, with_others):
                self.ctx.log(f"{service}: {exc}; it is replaced together with the others instead")
                self._up([service])
                self.front.reload()
                return
            raise StepError(
                f"The new {service} of Dify {self.version} did not get well beside the running one, which goes on "
                f"serving: {exc}{said}",
                f"Its log is in {self.ctx.folder}." if self.ctx.folder else "",
            ) from None
        self.front.point(service, address)
        self._finish([first, *(one for one in beside if one.name != name)], service)
        # From here on the container beside serves; a process that is killed now leaves it serving.
        for one in beside:
            if one.name != name:
                self.docker.run(["rm", "-f", one.id], _LOOK)
        self._up([service], ["--no-deps"])
        self._tidy(service)
        self.ctx.log(f"{service}: replaced")

    def _start_beside(self, service: str, name: str, beside: Sequence[Container]) -> str:
        """The container beside runs and has proved itself; its address."""
        if not any(one.name == name for one in beside):
            self.ctx.log(f"{service}: a second container is started beside the first")
            arguments = ["run", "-d", "-T", "--no-deps", "--use-aliases", "--quiet-pull", "--name", name]
            arguments += ["--label", f"{_NEXT}=1"]
            # The schema is the same, and two migrations at a time get into each other's way.
            arguments += ["-e", "MIGRATION_ENABLED=false"] if service == "api" else []
            code, out, err = self.project.run([*arguments, service], self.ctx.remaining(_LOOK * 2))
            if code:
                raise NotProved(f"Docker cannot start it: {self.ctx.mask(last_line(err or out))}.")
        return self._prove(service, name)

    def _prove(self, service: str, name: str) -> str:
        """The container answers as the release must; its address."""
        begun = time.monotonic()
        address = self.project.address(name)
        if not address:
            raise NotProved("It ended right after its start.")
        prove(self.ctx, service, name, f"http://{address}:{BESIDE[service]}", self.version)
        self.ctx.log(f"{service}: {name} proved itself after {time.monotonic() - begun:.1f} s")
        return address

    def _give_up(self, service: str, name: str) -> str:
        """Keep what the container said, and remove it where nobody is sent to it; its last words."""
        one = next((one for one in self._beside(service) if one.name == name), None)
        if one is None:
            return ""
        last = self.ctx.mask(" / ".join(self.docker.log_tail(one, _LOOK)))[:500]
        if self.ctx.folder:
            self.ctx.keep(f"{service}-beside.log", self.docker.logs(one, _LOOK))
        if self.project.address(name) not in self.front.pointed().values():
            self.docker.run(["rm", "-f", one.id], _LOOK)
        return f" Its log ends with: {last}" if last else ""

    def _tidy(self, service: str) -> None:
        """Back to the service's own container; those beside it finish their calls and go."""
        beside = self._beside(service)
        pointed = self.front.pointed().get(service) if beside or self._nginx_runs() else None
        if not beside and not pointed:
            return
        own = self.project.container(service)
        if own is None or not own.running:
            self._up([service], ["--no-deps"])
        try:
            address = self._prove(service, self._own_name(service))
        except NotProved as exc:
            raise StepError(
                f"The {service} of Dify {self.version} does not get well in its own container: {exc}",
                "The container beside it goes on serving until the next run.",
            ) from None
        # The name still leads to both, so nginx is told which one before it may ask for the name again.
        self.front.point(service, address)
        self._finish(beside, service)
        for one in beside:
            self.docker.output(["rm", "-f", one.id], _LOOK)
        self.front.unpoint(service)

    def _own_name(self, service: str) -> str:
        own = self.project.container(service)
        if own is None:
            raise NotProved("It has no container.")
        return own.name

    def _finish(self, leaving: Iterable[Container], service: str) -> None:
        """Wait for the calls of containers that get no new ones."""
        until = time.monotonic() + self.ctx.remaining(self.ctx.options.drain_seconds)
        for one in leaving:
            left = max(0.0, until - time.monotonic())
            if not drain(self.docker, one.name, BESIDE[service], left, also=self.front.settled):
                count = connections(self.docker, one.name, BESIDE[service])
                self.ctx.log(f"{one.name}: {count} calls did not end within dify_drain_seconds and are cut")

    def _beside(self, service: str) -> list[Container]:
        compose = "label=com.docker.compose."
        labels = (f"label={_NEXT}", f"{compose}project={self.project.name}", f"{compose}service={service}")
        filters = [part for label in labels for part in ("--filter", label)]
        return self.docker.inspect(self.docker.output(["ps", "-a", "-q", "--no-trunc", *filters], _LOOK).split(), _LOOK)

    # -- at a quiet moment

    def _swap(self, services: Sequence[str]) -> None:
        """Replace what has to be away for some seconds, while requests wait in front of it."""
        if not self._nginx_runs():
            self._up(services)
            return
        api = self.project.container("api")
        port = BESIDE["api"]
        # Nobody has to wait for calls that end by themselves before long; with many users there is no such moment.
        if api is not None:
            drain(self.docker, api.name, port, self.ctx.remaining(self.ctx.options.drain_seconds), step=0.05)
        begun = time.monotonic()
        with self.front.hold(_HOLD) as held:
            if api is not None and held and not drain(self.docker, api.name, port, _QUIET, step=0.1):
                count = connections(self.docker, api.name, port)
                self.ctx.log(f"{', '.join(services)}: {count} calls did not end in time and may be cut")
            self._up(services, ["--no-deps", "--timeout", "5"], wait=any(name in _DATA for name in services))
            well = _DAEMON not in services or self._plugins_answer(_HOLD - 1 - (time.monotonic() - begun))
        waited = time.monotonic() - begun
        self.ctx.log(f"{', '.join(services)}: replaced; requests {'waited' if held else 'failed for'} {waited:.1f} s")
        # Requests cannot wait for ever; whatever needs no plugin is served while a slow one starts.
        if well or self._plugins_answer(self.ctx.remaining(self.ctx.options.health_deadline)):
            self.trouble = ""

    def _plugins_answer(self, seconds: float) -> bool:
        try:
            prove_plugins(self.ctx, self._own_name(_DAEMON), self.version, max(1.0, seconds))
        except NotProved as exc:
            self.trouble = f"{_DAEMON}: {exc}"
            return False
        return True

    def _nginx_runs(self) -> bool:
        one = self.project.container(_NGINX)
        return one is not None and one.running

    def _up(self, services: Iterable[str], extra: Iterable[str] = (), wait: bool = False) -> None:
        self.project.up(services, self.ctx.remaining(600), wait=wait, extra=extra)


def _needs(trouble: NotProved, others: Sequence[str]) -> bool:
    """Whether a container may fail beside the running one for want of what is replaced after it.

    A database may have another password, without which no API starts. Of the plugin daemon, which may have another key,
    it needs only what goes through it; one that does not even answer by itself would not do so later either.
    """
    return any(name in _DATA or (name == _DAEMON and trouble.check == "llm") for name in others)
