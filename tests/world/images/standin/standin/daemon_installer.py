# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv as the daemon runs it: what it is told, what it sees of the daemon's environment, and how long it may be still.

The real daemon asks for Python 3.12 by its number; here it is the image's own (PYTHON_INTERPRETER_PATH).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from standin.daemon_config import Config
from standin.daemon_log import Log
from standin.daemon_versions import Generation

INSTALL_SECONDS = 600.0  # for the installer, and again for compiling
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
SHOWN = 512  # characters of the output, from its beginning and from its end
TWICE = "failed to install dependencies: failed to install dependencies"


class InstallerFailed(Exception):
    """What the failed task will say, without its last line."""


def install(config: Config, behaviour: Generation, target: Path, log: Log) -> None:
    """Make .venv and install what the package asks for; raises InstallerFailed."""
    status, output = _run(config, target, ["venv", ".venv", "--python", config.python], os.environ)
    if status:
        raise InstallerFailed(
            f"failed to create virtual environment: failed to create virtual environment: {status}, "
            f"output: {_shortened(output)}"
        )
    arguments = _arguments(config, behaviour, target)
    log.write("INFO", "setup_python_environment.go:200", "uv command", cmd=config.uv, args=f"[{' '.join(arguments)}]")
    status, output = _run(config, target, arguments, _environment(config, behaviour, target))
    if status:
        raise refused(status, output, still=config.env_init_seconds if status == "signal: killed" else 0)
    # Bytecode now, so that the process starts within its first heartbeat's time. What does not compile, or not in time,
    # is no failure.
    compile_all = [str(target / ".venv/bin/python"), "-m", "compileall", "-q", *config.compile_arguments, "."]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(compile_all, cwd=target, capture_output=True, check=False, timeout=INSTALL_SECONDS)


def silence(config: Config, seconds: float) -> None:
    """An installer that says nothing for so long; raises InstallerFailed where the daemon would have killed it."""
    time.sleep(min(seconds, config.env_init_seconds))
    if seconds > config.env_init_seconds:
        raise refused("signal: killed", "", still=config.env_init_seconds)


def refused(status: str, output: str, still: float = 0) -> InstallerFailed:
    text = f"{TWICE}: {status}, output: {_shortened(output)}"
    if still:
        return InstallerFailed(f"{text.rstrip()}\ninit process exited due to no activity for {still:g} seconds")
    return InstallerFailed(text)


def _shortened(output: str) -> str:
    return output if len(output) <= 2 * SHOWN else f"{output[:SHOWN]}...{output[-SHOWN:]}"


def _arguments(config: Config, behaviour: Generation, target: Path) -> list[str]:
    """A package index of the operator's own makes requirements.txt win over pyproject.toml and its lock."""
    index = ["-i", config.index] if config.index else []
    requirements = (target / "requirements.txt").is_file()
    project = behaviour.installs_projects and (target / "pyproject.toml").is_file()
    if project and not (index and requirements):
        frozen = ["--frozen"] if behaviour.frozen_lock and (target / "uv.lock").is_file() else []
        return ["sync", "--no-dev", *frozen, *index, "-v", *config.index_arguments]
    told = ["-vvv"] if behaviour.verbose_installer else []
    return ["pip", "install", *index, "-r", "requirements.txt", *told, *config.index_arguments]


def _environment(config: Config, behaviour: Generation, target: Path) -> dict[str, str]:
    """No more than this: UV_*, PIP_* and certificate variables of the container do not reach the installer."""
    found = {"VIRTUAL_ENV": str(target / ".venv"), "PATH": os.environ.get("PATH", os.defpath)}
    if behaviour.installer_cache:
        found["UV_CACHE_DIR"] = str(config.working_path / ".uv-cache")
    return {**found, **{name: os.environ[name] for name in PROXIES if os.environ.get(name)}}


def _run(config: Config, target: Path, arguments: list[str], environment: Mapping[str, str]) -> tuple[str, str]:
    """Exit status in Go's words ("" for 0) and output; an installer that is still or takes too long is killed."""
    try:
        process = subprocess.Popen(
            [config.uv, *arguments],
            cwd=target,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return f"fork/exec {config.uv}: {(error.strerror or '').lower()}", ""
    lines: list[str] = []
    heard = [time.monotonic()]

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            heard[0] = time.monotonic()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    last = time.monotonic() + INSTALL_SECONDS
    while True:
        try:
            status = process.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() > min(heard[0] + config.env_init_seconds, last):
                process.kill()
    listener.join(5)
    shown = "" if status == 0 else "signal: killed" if status < 0 else f"exit status {status}"
    return shown, "".join(lines)
