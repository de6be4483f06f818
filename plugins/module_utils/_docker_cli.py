# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""The docker command line, as far as looking at a Compose project needs it. Nothing here changes anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

_LABEL = "com.docker.compose."
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|_KEY$|_KEY_|_URL$|_URI$|_DSN$", re.IGNORECASE)
_PLAIN_URL = re.compile(r"https?://[^@?]*")
_PLAIN_ADDRESS = re.compile(r"\S*_URL=[\w.-]+:\d{1,5}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
_ASSIGNED = re.compile(
    r"(?i)\b([\w.-]*(?:password|passwd|secret|token|api[_-]?key)[\w.-]*[\"']?\s*[=:]\s*[\"']?)(?!\s)[^\s\"',}]+"
)


class DockerError(Exception):
    """docker did not do what was asked. The text is one sentence without its full stop."""


@dataclass
class Container:
    id: str
    name: str
    service: str
    image: str
    state: str
    health: str
    exit_code: int
    restarts: int
    started: str
    error: str
    out_of_memory: bool
    restart_policy: str
    health_output: str
    env: dict[str, str] = field(default_factory=dict, repr=False)
    labels: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def running(self) -> bool:
        return self.state == "running"


class Docker:
    def __init__(self, program: str = "docker") -> None:
        self.program = program

    def run(
        self,
        arguments: list[str],
        timeout: float,
        stdin: str | None = None,
        merged: bool = False,
        env: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Exit code, output and errors; `merged` puts the errors into the output, in the order of their coming."""
        try:
            done = subprocess.run(
                [self.program, *arguments],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
                # No locale of ours: Compose would set it in each container whose definition names LC_ALL, as Dify's do.
                env={**os.environ, **(env or {})},
            )
        except FileNotFoundError:
            raise DockerError("there is no docker command on this host") from None
        except OSError as exc:
            raise DockerError(f"the docker command cannot be started ({exc.strerror})") from None
        except subprocess.TimeoutExpired:
            raise DockerError(f"docker {arguments[0]} did not finish within {timeout:g} s") from None
        return done.returncode, done.stdout, done.stderr or ""

    def output(self, arguments: list[str], timeout: float, stdin: str | None = None) -> str:
        code, out, err = self.run(arguments, timeout, stdin)
        if code:
            raise DockerError(f"docker {arguments[0]} failed: {last_line(err or out) or f'exit code {code}'}")
        return out

    def project(self, name: str, timeout: float) -> list[Container]:
        """All containers of a Compose project, one-off ones (`docker compose run`) left out."""
        found = self.output(["ps", "-a", "-q", "--no-trunc", "--filter", f"label={_LABEL}project={name}"], timeout)
        containers = self.inspect(found.split(), timeout)
        kept = [one for one in containers if one.labels.get(_LABEL + "oneoff", "False") != "True"]
        return sorted(kept, key=lambda one: one.name)

    def inspect(self, ids: list[str], timeout: float) -> list[Container]:
        """What these containers are. One that went away meanwhile is left out."""
        if not ids:
            return []
        # A container that is gone makes inspect exit 1 and still print the others.
        code, out, err = self.run(["inspect", "--type", "container", *ids], timeout)
        try:
            described = json.loads(out)
        except ValueError:
            raise DockerError(f"docker inspect failed: {last_line(err) or f'exit code {code}'}") from None
        return [container(one) for one in described]

    def services(self, containers: list[Container], name: str, timeout: float) -> list[str]:
        """The services that the project's own files ask for, [] where those cannot be read."""
        labels = next((one.labels for one in containers if _LABEL + "project.config_files" in one.labels), {})
        files = [path for path in labels.get(_LABEL + "project.config_files", "").split(",") if path]
        directory = labels.get(_LABEL + "project.working_dir", "")
        if not files or not directory:
            return []
        arguments = ["compose", "--project-name", name, "--project-directory", directory]
        environment = labels.get(_LABEL + "project.environment_file", "")
        arguments += [part for path in environment.split(",") if path for part in ("--env-file", path)]
        arguments += [part for path in files for part in ("--file", path)]
        try:
            return sorted(self.output([*arguments, "config", "--services"], timeout).split())
        except DockerError:
            return []

    def log_tail(self, one: Container, timeout: float, lines: int = 3) -> list[str]:
        """The last lines a container wrote, as they are: secrets must be masked before anything is cut off."""
        try:
            code, out, _err = self.run(["logs", "--tail", str(lines), one.id], timeout, merged=True)
        except DockerError:
            return []
        return [] if code else [line for line in out.splitlines() if line.strip()][-lines:]

    def logs(self, one: Container, timeout: float, *selection: str, limit: int = 4 * 1024 * 1024) -> str:
        """What a container wrote, at most `limit` bytes of it: a log may be of any size."""
        command = [self.program, "logs", *selection, one.id]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as exc:
            raise DockerError(f"the docker command cannot be started ({exc.strerror})") from None
        late = threading.Timer(timeout, process.kill)
        late.start()
        try:
            with process:
                data = process.stdout.read(limit) if process.stdout else b""
                if len(data) == limit:
                    process.kill()
        finally:
            late.cancel()
        text = data.decode("utf-8", "replace")
        if process.returncode > 0:
            raise DockerError(f"docker logs failed: {last_line(text) or f'exit code {process.returncode}'}")
        if process.returncode < 0 and len(data) < limit:
            raise DockerError(f"docker logs did not finish within {timeout:g} s")
        return text


def container(described: dict[str, Any]) -> Container:
    """A container from what `docker inspect` says about it."""
    state = described.get("State") or {}
    config = described.get("Config") or {}
    labels = config.get("Labels") or {}
    health = state.get("Health") or {}
    log = health.get("Log") or []
    return Container(
        id=described.get("Id", ""),
        name=described.get("Name", "").lstrip("/"),
        service=labels.get(_LABEL + "service", ""),
        image=config.get("Image", ""),
        state=state.get("Status", ""),
        health=health.get("Status", "") if health.get("Status") != "none" else "",
        exit_code=state.get("ExitCode") or 0,
        restarts=described.get("RestartCount") or 0,
        started=state.get("StartedAt") or "",
        error=state.get("Error") or "",
        out_of_memory=bool(state.get("OOMKilled")),
        restart_policy=((described.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no",
        health_output=(log[-1].get("Output") or "").strip() if log else "",
        env=dict(pair.split("=", 1) for pair in config.get("Env") or [] if "=" in pair),
        labels=labels,
    )


def secrets(containers: list[Container]) -> set[str]:
    """Values in the environment of containers that must not be shown. Short ones would blank out ordinary words."""
    return {
        value
        for one in containers
        for name, value in one.env.items()
        if _SECRET_NAME.search(name)
        and len(value) >= 6
        and not _PLAIN_URL.fullmatch(value)
        and not _PLAIN_ADDRESS.fullmatch(f"{name}={value}")
    }


def mask(text: str, known: set[str] | frozenset[str] = frozenset()) -> str:
    """A text from a log or an error without its secrets: the known ones, and what looks like one."""
    for value in sorted(known, key=len, reverse=True):
        if value:
            text = text.replace(value, "***")
    return _ASSIGNED.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
