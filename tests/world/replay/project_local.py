# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compose project whose containers are this machine: `docker exec` runs the command here, against real servers."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, Docker

# What looks at the engine finds what a test laid down. `exec` and `run` skip docker's own options, and what names the
# container or image; the environment is there already.
DOCKER = """#!/bin/bash
echo "$@" >>"$0.log"
if [ "$1" != exec ] && [ "$1" != run ]; then
    cat "$0.$1" 2>/dev/null
    exit 0
fi
shift
while [ "${1#-}" != "$1" ]; do
    case $1 in
        -e | --network | --entrypoint | --name) shift 2 ;;
        *) shift ;;
    esac
done
if [ -e "$0.gone" ]; then
    rm "$0.gone"
    echo "Error response from daemon: No such container: $1" >&2
    exit 1
fi
shift
exec "$@"
"""


def container(service: str, state: str = "running", env: dict[str, str] | None = None) -> Container:
    return Container(
        id=f"id-of-{service}",
        name=f"dify-{service}-1",
        service=service,
        image="",
        state=state,
        health="",
        exit_code=0,
        restarts=0,
        started="",
        error="",
        out_of_memory=False,
        restart_policy="always",
        health_output="",
        env=env or {},
    )


class LocalProject:
    """What the module utils ask of a project."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        program = folder / "docker"
        program.write_text(DOCKER)
        program.chmod(0o755)
        self.home = str(folder)
        self.name = "dify"
        self.docker = Docker(str(program))
        self.env = settings
        self.found = {name: container(name) for name in ("db", "db_postgres", "redis")}
        self.once: Any = types.SimpleNamespace()

    @property
    def commands(self) -> str:
        """Every docker command so far."""
        return Path(f"{self.docker.program}.log").read_text()

    def say(self, command: str, text: str) -> None:
        """What `docker <command>` prints from now on."""
        Path(f"{self.docker.program}.{command}").write_text(text)

    def lose_container(self) -> None:
        """The next command finds that its container was replaced."""
        Path(f"{self.docker.program}.gone").touch()

    def settings(self, tag: str = "") -> dict[str, str]:
        return self.env

    def container(self, service: str) -> Container | None:
        return self.found.get(service)

    def containers(self) -> list[Container]:
        return list(self.found.values())
