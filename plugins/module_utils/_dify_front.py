# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Dify's nginx while what is behind it changes: closed with a page, or pointed at another container.

Everything is written into the writable layer of the running container. The release's files stay as they are, and an
nginx that is started anew renders its configuration from its templates, so it comes back open and pointing at nobody:
ask is_closed() before relying on it.

nginx refuses a configuration with a name that nobody has. A service that is away must not keep the others from being
found, so its name leads nowhere (a bad gateway, as it would anyway) until the next reload; missing() tells.

A reload loses nothing: old workers finish what they have, and reload() returns only when no old worker takes a new
connection any more.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Project
from ansible_collections.llmops.stack.plugins.module_utils._dify_due import due
from ansible_collections.llmops.stack.plugins.module_utils._dify_front_config import (
    FOLDER,
    HEADER,
    MAIN,
    MARK,
    Page,
    closed_files,
    hosts_lines,
    parse_files,
    token_in,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_front_scripts import (
    HOLD,
    HOSTS,
    IN_FORCE,
    IS_SETTLED,
    READ,
    RELOAD,
    TRANSACTION,
    WAKE,
)
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError, mask

__all__ = ["HEADER", "Front", "FrontError", "Page"]

_SERVICE = "nginx"
_LOOK = 30.0
_SAVED = f"{FOLDER}/nginx.conf"  # the open one
_NOWHERE = "127.0.0.1"  # nginx itself, where none of Dify's ports is open
_NOT_THERE = re.compile(r"(?i)no such container|is not running|is restarting")
_UNKNOWN = re.compile(r'host not found in upstream "([A-Za-z0-9_-]+)')


class FrontError(Exception):
    """nginx does not do what is wanted. The text is one sentence without its full stop."""


class Front:
    def __init__(self, project: Project) -> None:
        self.project = project
        self._id = ""

    # -- closed and open

    def close(self, page: Page | None = None) -> None:
        """Answer 503 with a page to everybody who does not send the header; what nginx has begun is finished.

        Raises:
            FrontError: nginx does not run, or refuses the configuration; it then serves as before.
        """
        files = self._files()
        if _is_closed(files):
            return
        # What says that it is in force is renamed and not written then, for the disk may be full.
        note, done = f"date >{IN_FORCE}.new\n", f"mv {IN_FORCE}.new {IN_FORCE}\n"
        if MARK in files.get(MAIN, ""):
            self._apply(note, done)
            return
        token = secrets.token_hex(16)
        try:
            written = closed_files(files, token, page or Page())
        except ValueError as exc:
            raise FrontError(str(exc)) from None
        script = f"umask 077\nrm -rf {FOLDER}\nmkdir -p {FOLDER}/conf.d\n{note}put {MAIN} {_SAVED}\n"
        for path, text in written.items():
            # No line of a page can end the here-document.
            script += f"take {path} <<'END-{token}'\n{text.rstrip()}\nEND-{token}\n"
        self._apply(script, done, undo=f"put {_SAVED} {MAIN}")

    def open(self) -> None:
        """Serve everybody again.

        Raises:
            FrontError: nginx does not run, or refuses the configuration; it then stays closed.
        """
        files = self._files()
        # In force without the mark: it was to be opened, and that came half-way.
        if MARK not in files.get(MAIN, "") and IN_FORCE not in files:
            return
        closed = f"{FOLDER}/closed.conf"
        script = f"umask 077\n[ -e {closed} ] || put {MAIN} {closed}\nput {_SAVED} {MAIN}\n"
        self._apply(script, f"rm -rf {FOLDER}\n", undo=f"put {closed} {MAIN}")

    def is_closed(self) -> bool:
        """Whether nginx runs and answers with the page. A container that was started anew does not."""
        try:
            return _is_closed(self._files())
        except FrontError:
            return False

    @property
    def token(self) -> str:
        """What the header must say to be let through; empty where nginx is open."""
        try:
            code, out, _err = self._run(f"cat {FOLDER}/maintenance.conf 2>/dev/null; true")
        except FrontError:
            return ""
        return token_in(out) if code == 0 else ""

    def headers(self) -> dict[str, str]:
        """The headers that let a request through, whether nginx is closed or not."""
        token = self.token
        return {HEADER: token} if token else {}

    # -- where requests go

    def point(self, service: str, address: str) -> None:
        """Send the requests for a service to an address, until unpoint() or until nginx is started anew."""
        if self.pointed().get(service) != address:
            self._apply(changes={service: address})

    def unpoint(self, service: str) -> None:
        """Ask Docker again where the service is."""
        if service in self.pointed():
            self._apply(changes={service: ""})

    def pointed(self) -> dict[str, str]:
        """Services that nginx was pointed away from, and the addresses that it uses instead."""
        return {name: address for name, address in hosts_lines(self._hosts()).items() if address != _NOWHERE}

    def missing(self) -> list[str]:
        """Services that Docker did not know at the last reload."""
        return sorted(name for name, address in hosts_lines(self._hosts()).items() if address == _NOWHERE)

    def reload(self) -> None:
        """Read the configuration again and ask for all addresses anew; also revives an nginx that cannot start.

        Raises:
            FrontError: nginx refuses, with its own words; it then goes on as before.
        """
        one = self._container()
        if not one.running:
            self._start(one)
            return
        pointed = self.pointed()
        # A process that was killed may have left one that leads to a container that is gone.
        here = self._addresses() if pointed else set()
        self._apply(changes={name: "" for name, address in pointed.items() if (name, address) not in here})

    def settled(self) -> bool:
        """Whether no worker from before the last reload has a request left: it would still go to the old address."""
        return self._run(IS_SETTLED)[0] == 0

    def _hosts(self) -> str:
        return self._run("cat /etc/hosts")[1]

    def _addresses(self) -> set[tuple[str, str]]:
        """Service and address of every running container of the project, on each of its networks."""
        docker = self.project.docker
        label = f"label=com.docker.compose.project={self.project.name}"
        ids = docker.output(["ps", "-q", "--filter", label], _LOOK).split()
        form = '{{index .Config.Labels "com.docker.compose.service"}}'
        form += "{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}"
        _code, out, _err = docker.run(["inspect", "--format", form, *ids], _LOOK)
        return {(line.split()[0], address) for line in out.splitlines() if line for address in line.split()[1:]}

    def _apply(
        self, before: str = "", after: str = "", undo: str = "true", changes: Mapping[str, str] | None = None
    ) -> None:
        """Write, have nginx read it, and go on only when it has; what it refuses is taken back."""
        text = self._hosts()
        lines = [line for line in text.splitlines() if not hosts_lines(line)]
        wanted = {name: address for name, address in hosts_lines(text).items() if address != _NOWHERE}
        wanted = {name: address for name, address in {**wanted, **(changes or {})}.items() if address}
        while True:
            fresh = "\n".join([*lines, *(f"{address} {name} {MARK}" for name, address in wanted.items())])
            script = TRANSACTION.format(undo=undo) + before
            if fresh != "\n".join(text.splitlines()):
                # Docker mounts the file: it can be written, and not replaced.
                script += f"put /etc/hosts {HOSTS}\ncat >/etc/hosts <<'END-HOSTS'\n{fresh}\nEND-HOSTS\n"
            script += f"(\nset +e\n{RELOAD}\n)\n{after}"
            said = self._script(script)
            unknown = _UNKNOWN.search(said)
            if unknown is None or unknown[1] in wanted:
                break
            wanted[unknown[1]] = _NOWHERE
        if said:
            raise FrontError(f"nginx refuses its configuration: {said}")

    # -- held for a moment

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[bool]:
        """Let new requests wait, and those in flight go on. For a few seconds at most.

        New workers take over and are stopped at once, so the kernel takes connections and nobody answers; the old ones
        end what they have. After `seconds` they wake, also where this process was killed: a second process of its own
        sees to that. What is yielded says whether requests wait; where they cannot, that is no reason to stop.
        """
        self._run("true")  # the container, by its present name
        guard = subprocess.Popen(
            ["sh", "-c", 'sleep "$0"; exec "$@"', str(max(1, round(seconds))), *self._command(WAKE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield self._run(HOLD)[0] == 0
        finally:
            self._run(WAKE)
            guard.kill()
            guard.wait()

    def _command(self, script: str) -> list[str]:
        return [self.project.docker.program, "exec", self._id, "sh", "-c", script]

    # -- the container

    def is_due(self) -> bool:
        """Whether `up` would make a new container of nginx: it comes open, and for about a second nobody answers."""
        return bool(due(self.project, [_SERVICE]))

    def _container(self) -> Container:
        try:
            one = self.project.container(_SERVICE)
        except DockerError as exc:
            raise FrontError(str(exc)) from None
        if one is None:
            raise FrontError("Dify's nginx has no container; `docker compose up -d nginx` makes one")
        return one

    def _start(self, one: Container) -> None:
        """nginx ends where a name behind it is unknown, and Docker waits longer and longer before it tries again."""
        code, _out, err = self.project.docker.run(["restart", "-t", "5", one.id], _LOOK + 10)
        deadline = time.monotonic() + 10
        while code == 0 and time.monotonic() < deadline:
            with contextlib.suppress(FrontError):
                if self._run("nginx -t 2>/dev/null && [ -s /run/nginx.pid ]")[0] == 0:
                    return
            time.sleep(0.3)
        raise FrontError(
            f"nginx does not start ({mask(err.strip()) or 'its log says why'}); look at `docker logs {one.name}`"
        )

    def _files(self) -> dict[str, str]:
        code, out, err = self._run(READ)
        files = parse_files(out)
        if code or not files:
            raise FrontError(f"nginx's configuration cannot be read: {mask(err.strip()) or 'it is empty'}")
        return files

    def _run(self, script: str, timeout: float = _LOOK) -> tuple[int, str, str]:
        """A script in nginx's container; it comes over stdin, so its length does not matter."""
        for known in (True, False):
            if not (known and self._id):
                one = self._container()
                if not one.running:
                    raise FrontError(f"nginx does not run: its container is {one.state}")
                self._id = one.id
            try:
                done = self.project.docker.run(["exec", "-i", self._id, "sh", "-s"], timeout, script)
            except DockerError as exc:
                raise FrontError(f"nginx cannot be told anything: {exc}") from None
            if not _NOT_THERE.search(done[2]):
                break
            self._id = ""
        return done

    def _script(self, script: str) -> str:
        """Run it; why it failed, empty where it did not."""
        # In braces, so that a script of which only a part arrives does nothing at all.
        code, out, err = self._run(f"{{\n{script}\nexit 0\n}}\n")
        if not code:
            return ""
        lines = [line for line in f"{out}\n{err}".splitlines() if line.strip()]
        said = next((line for line in lines if "[emerg]" in line), lines[-1] if lines else f"exit code {code}")
        return mask(re.sub(r"^.*\[emerg\] (?:\d+#\d+: )?", "", said))


def _is_closed(files: Mapping[str, str]) -> bool:
    return MARK in files.get(MAIN, "") and IN_FORCE in files
