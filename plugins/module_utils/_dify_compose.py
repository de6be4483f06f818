# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Dify's compose project: what starts, stops and asks its containers.

Compose is always called with the project directory C(<home>/current), a link, and never with the folder behind it: the
sources of mounts are paths below the project directory, so a service that two releases describe alike keeps its
configuration hash over an upgrade, and is not restarted.

Values that may be secrets go to a container through the environment of the docker command (C(-e NAME)), so that no list
of processes shows them.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._dify_env import parse_env
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import (
    Container,
    Docker,
    DockerError,
    last_line,
    mask,
)

__all__ = ["Done", "Project"]

_LABEL = "com.docker.compose."
_LOOK = 60.0  # seconds for what only asks the engine


class Done(NamedTuple):
    """A command that ran in a container of its own."""

    code: int
    out: str  # with the errors, in the order of their coming
    seconds: float
    timed_out: bool = False


class Project:
    def __init__(self, home: str = "/opt/dify", name: str = "dify", docker: Docker | None = None) -> None:
        self.home = home
        self.name = name
        self.docker = docker or Docker()

    # -- the files of a release

    def folder(self, tag: str = "") -> str:
        return os.path.join(self.home, "releases", tag) if tag else os.path.join(self.home, "current")

    def settings(self, tag: str = "") -> dict[str, str]:
        """The rendered .env of a release; empty where there is none."""
        try:
            with open(os.path.join(self.folder(tag), ".env"), encoding="utf-8") as file:
                return parse_env(file.read())
        except FileNotFoundError:
            return {}

    def definition(self, tag: str = "", timeout: float = _LOOK) -> dict[str, Any]:
        """The project as compose understands it, with every value in its place. It holds secrets."""
        described = json.loads(self.compose(["config", "--format", "json"], timeout, tag))
        return described if isinstance(described, dict) else {}

    def services(self, tag: str = "", timeout: float = _LOOK) -> list[str]:
        return sorted(self.compose(["config", "--services"], timeout, tag).split())

    def sums(self, tag: str, services: Iterable[str], timeout: float = _LOOK) -> dict[str, str]:
        """What compose would note at the containers of these services if this release were the current one."""
        files = [
            os.path.join(self.folder(tag), name) for name in ("docker-compose.yaml", "docker-compose.override.yaml")
        ]
        arguments = ["--env-file", os.path.join(self.folder(tag), ".env")]
        arguments += [part for file in files if os.path.exists(file) for part in ("-f", file)]
        out = self.compose([*arguments, "config", "--hash", ",".join(services)], timeout)
        return dict(line.split() for line in out.splitlines() if len(line.split()) == 2)

    # -- compose

    def run(
        self,
        arguments: list[str],
        timeout: float,
        tag: str = "",
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """C(docker compose ...) of the current release, or of another one: exit code, output, errors."""
        command = ["compose", "--project-directory", self.folder(tag), "-p", self.name, *arguments]
        return self.docker.run(command, timeout, stdin, env=dict(env or {}))

    def compose(
        self,
        arguments: list[str],
        timeout: float,
        tag: str = "",
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """The same; a command that fails is a DockerError with its last line."""
        code, out, err = self.run(arguments, timeout, tag, stdin, env)
        if code:
            said = mask(last_line(err or out)) or f"exit code {code}"
            raise DockerError(f"docker compose {arguments[0]} failed: {said}")
        return out

    def up(
        self, services: Iterable[str] = (), timeout: float = 600, wait: bool = False, extra: Iterable[str] = ()
    ) -> None:
        """Bring the services to what the current release says. What is as it should be is left alone."""
        arguments = ["up", "-d", "--quiet-pull", *extra]
        if wait:
            arguments += ["--wait", "--wait-timeout", str(max(1, int(timeout)))]
        self.compose([*arguments, *services], timeout + (15 if wait else 0))

    # -- containers: by the labels of the project, because the files of one release do not know another one's services

    def containers(self, timeout: float = _LOOK) -> list[Container]:
        return self.docker.project(self.name, timeout)

    def container(self, service: str, timeout: float = _LOOK) -> Container | None:
        """The container of a service, a running one first."""
        found = [one for one in self.containers(timeout) if one.service == service]
        return next((one for one in found if one.running), found[0] if found else None)

    def stop(self, services: Iterable[str | Container], seconds: int = 10) -> None:
        """Stop; what has not ended after these seconds is killed. All at the same time.

        Containers may be given in place of services, by whoever has just looked.
        """
        ids = [one.id for one in self._of(services) if one.state in ("running", "restarting", "paused")]
        if ids:
            self.docker.output(["stop", "-t", str(seconds), *ids], seconds + _LOOK)

    def remove(self, services: Iterable[str | Container]) -> None:
        """Take the containers away, running or not."""
        ids = [one.id for one in self._of(services)]
        if ids:
            self.docker.output(["rm", "-f", *ids], _LOOK)

    def _of(self, services: Iterable[str | Container]) -> list[Container]:
        given = list(services)
        names = {one for one in given if isinstance(one, str)}
        found = [one for one in given if isinstance(one, Container)]
        return found + ([one for one in self.containers() if one.service in names] if names else [])

    def address(self, name: str) -> str:
        """Where a service, or a container by its name, is on the project's network; empty when it is not running."""
        one = self.container(name)
        arguments = ["inspect", "--type", "container", "--format", "{{json .NetworkSettings.Networks}}"]
        code, out, _err = self.docker.run([*arguments, one.id if one else name], _LOOK)
        networks = json.loads(out) if code == 0 and out.strip() else None
        if not isinstance(networks, dict):
            return ""
        own = networks.get(f"{self.name}_default")
        ordered = [own] if own else list(networks.values())
        return next((str(each["IPAddress"]) for each in ordered if each and each.get("IPAddress")), "")

    # -- commands in containers

    def exec(
        self,
        service: str,
        argv: list[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        user: str = "",
    ) -> tuple[int, str, str]:
        """A command in the running container of a service."""
        one = self.container(service)
        if one is None or not one.running:
            raise DockerError(f"the container of {service} does not run")
        arguments = ["exec", *(["-i"] if stdin is not None else []), *(["-u", user] if user else [])]
        arguments += [part for key in env or {} for part in ("-e", key)]
        return self.docker.run([*arguments, one.id, *argv], timeout, stdin, env=dict(env or {}))

    def once(
        self,
        service: str,
        command: list[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        user: str = "",
        tag: str = "",
        volumes: Iterable[str] = (),
    ) -> Done:
        """A command in a container of its own, made like that of the service. After C(timeout) the process is gone."""
        name = f"{self.name}-once-{service.replace('_', '-')}-{secrets.token_hex(3)}"
        arguments = ["compose", "--project-directory", self.folder(tag), "-p", self.name]
        arguments += ["run", "--rm", "--no-deps", "-T", "--name", name, "--entrypoint", ""]
        arguments += ["-u", user] if user else []
        arguments += [part for volume in volumes for part in ("-v", volume)]
        arguments += [part for key in env or {} for part in ("-e", key)]
        begun = time.monotonic()
        try:
            with subprocess.Popen(
                [self.docker.program, *arguments, service, *command],
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, **(env or {})},
            ) as process:
                late = False
                try:
                    out, _none = process.communicate(stdin, timeout)
                except subprocess.TimeoutExpired:
                    late = True
                    # The client alone would leave the container running.
                    self.docker.run(["rm", "-f", name], _LOOK)
                    process.kill()
                    out, _none = process.communicate()
        except OSError as exc:
            raise DockerError(f"the docker command cannot be started ({exc.strerror})") from None
        return Done(process.returncode, out, time.monotonic() - begun, late)
