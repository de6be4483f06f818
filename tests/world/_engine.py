# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of the control machine, through its command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from _settings import LABEL, WorldError

NO_ENGINE = (
    "No container engine answers on this machine ({reason}). Start Docker, or let the collection install it: "
    "`make demo` and `make test` do that by themselves with the role llmops.stack.docker."
)


def docker(*args: str, stdin: bytes | None = None, check: bool = True, timeout: float = 1800) -> str:
    """Runs one docker command and returns what it printed."""
    return run("docker", *args, stdin=stdin, check=check, timeout=timeout)


def run(*command: str, stdin: bytes | None = None, check: bool = True, timeout: float = 1800, **options: Any) -> str:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False, **options)
    except subprocess.TimeoutExpired as late:
        raise WorldError(f"{command[0]} {command[1]} did not end within {timeout:.0f} s") from late
    if check and done.returncode:
        tail = "\n".join((done.stderr + done.stdout).decode(errors="replace").strip().splitlines()[-25:])
        shown = " ".join(command)
        raise WorldError(f"`{shown[:400]}` ended with {done.returncode}:\n{tail}")
    return done.stdout.decode(errors="replace")


def require_engine() -> None:
    if not shutil.which("docker"):
        raise WorldError(NO_ENGINE.format(reason="the docker command is not there"))
    done = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, check=False, timeout=60
    )
    if done.returncode or not done.stdout.strip():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise WorldError(NO_ENGINE.format(reason=lines[-1] if lines else "docker info is silent"))


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    out = docker(kind, "inspect", name, check=False)
    found = json.loads(out) if out.strip() else []
    return found[0] if found else None


def running(container: str) -> bool:
    found = inspect("container", container)
    return bool(found and found["State"]["Running"])


def image_exists(image: str) -> bool:
    return inspect("image", image) is not None


def forget_older(image: str) -> None:
    """Removes what an image was called before its content changed; one that a container uses stays."""
    for other in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", image.split(":")[0]).split():
        if other != image:
            docker("rmi", other, check=False)


def labelled(kind: str) -> list[str]:
    """Names of the world's containers, volumes or networks."""
    command = {
        "container": ["ps", "-a", "--format", "{{.Names}}"],
        "volume": ["volume", "ls", "--format", "{{.Name}}"],
        "network": ["network", "ls", "--format", "{{.Name}}"],
    }[kind]
    return docker(*command, "--filter", f"label={LABEL}").split()


def published_port(container: str, port: int) -> int:
    """The port of 127.0.0.1 that leads to a container's port."""
    out = docker("port", container, f"{port}/tcp", check=False).split()
    if not out:
        raise WorldError(f"{container} does not publish port {port}; `world.py down` and `up` start it anew")
    return int(out[0].rsplit(":", 1)[1])


def systemd_options(image: str) -> list[str]:
    """What lets systemd and an engine run inside a container here.

    --privileged is the simple way, but fails where root itself lacks a capability (nested containers, some CI runners);
    there an explicit list does. SYS_MODULE is left out as well: a node must not load modules into this kernel.
    """
    probe = ["run", "--rm", "--privileged", "--network", "none", "--entrypoint", "true", image]
    try:
        docker(*probe, timeout=120)
        return ["--privileged"]
    except WorldError:
        return [
            "--cap-add=ALL",
            "--cap-drop=SYS_RESOURCE",
            "--cap-drop=SYS_MODULE",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--security-opt=systempaths=unconfined",
        ]
