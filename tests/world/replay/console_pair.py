# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A live stand-in release with its plugin daemon and a model server, and clients of its console."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import harness_daemon as harness
import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import Console
from instance_api import CREDENTIALS, Instance, interpreter
from ports import free_port
from standin.daemon_package import pack

EMAIL, NAME, PASSWORD = "admin@example.com", "Admin", "Passw0rd!x"
INIT_PASSWORD = "init-pass-1"
# Releases as they are paired with a daemon; 0.15.3 knows none.
DAEMONS = {"0.15.3": "", "1.7.2": "0.2.0", "1.12.1": "0.5.3", "1.16.0": "0.6.3"}
# The last with the daemon's client under its first name, for the tests that look at it.
PAIRED = {**DAEMONS, "1.0.0": "0.0.3"}
WITH_DAEMON = tuple(release for release, daemon in DAEMONS.items() if daemon)


def on(*releases: str, fixture: str = "pair") -> pytest.MarkDecorator:
    """A test for these releases alone: what it is about is only there, or the same everywhere and slow."""
    return pytest.mark.parametrize(fixture, releases, indirect=True)


class Pair:
    """`url` is Dify's, `model_url` the model server's; the owner exists after set_up()."""

    def __init__(self, instance: Instance, daemon: harness.Daemon | None, model_port: int) -> None:
        self.instance, self.daemon = instance, daemon
        self.release = instance.release
        self.url = f"http://127.0.0.1:{instance.port}"
        self.model_url = f"http://127.0.0.1:{model_port}"
        self.credentials = {**CREDENTIALS, "base_url": self.model_url}

    def console(self, **options: Any) -> Console:
        return Console(self.url, **{"email": EMAIL, "password": PASSWORD, **options})

    def set_up(self) -> Console:
        console = self.console()
        if console.setup_status() == "not_started":
            console.setup(EMAIL, NAME, PASSWORD)
        return console

    def install(self, console: Console, version: str = "0.0.6", **options: Any) -> str:
        """Installs the stand-in's Ollama plugin from a package and waits for its task."""
        identifier = console.plugins.upload("ollama.difypkg", pack(version=version, **options))
        task_id = console.plugins.install(identifier)
        deadline = time.monotonic() + 20
        task: dict[str, Any] = {}
        while time.monotonic() < deadline and task.get("status") not in ("success", "failed"):
            time.sleep(0.1)
            task = console.plugins.task(task_id) or {}
        assert (task.get("status"), task.get("completed_plugins")) == ("success", 1), task
        return identifier


def ask_redis(instance: Instance, command: str, number: str = "") -> str:
    """The first line of Redis's answer, in the instance's database or another; "" for a key that does not exist."""
    host, port, password = (instance.environment[f"REDIS_{name}"] for name in ("HOST", "PORT", "PASSWORD"))
    number = number or instance.environment["REDIS_DB"]
    line = b""
    with socket.create_connection((host, int(port)), timeout=5) as sock, sock.makefile("rwb") as stream:
        for one in (f"AUTH {password}", f"SELECT {number}", command):
            stream.write(f"{one}\r\n".encode())
            stream.flush()
            line = stream.readline()
        if line.startswith(b"$"):
            line = b"" if line.startswith(b"$-1") else stream.readline()
    return line.decode().strip()


@contextmanager
def running(
    release: str, postgres: Any, redis_server: Any, directory: Path, number: int = 58, **environment: str
) -> Iterator[Pair]:
    """One release with its daemon. `number` is its Redis database: tests that run at the same time need others."""
    if not interpreter():
        pytest.skip("no Python with psycopg2, redis and yaml (Debian: python3-psycopg2 python3-redis python3-yaml)")
    with ExitStack() as stack:
        instance = Instance(release, postgres, redis_server, number)
        stack.callback(instance.close)
        instance.environment |= environment
        ask_redis(instance, "FLUSHDB")  # locks and caches of the pair before
        daemon = None
        if PAIRED[release]:
            ask_redis(instance, "FLUSHDB", "0")  # the packages that the daemon before had
            daemon = harness.Daemon(PAIRED[release], directory / "daemon", postgres, redis_server, free_port())
            stack.callback(daemon.close)
            instance.environment |= {"PLUGIN_DAEMON_URL": daemon.url, "PLUGIN_DAEMON_KEY": harness.KEY}
            daemon.start()
        model_port = free_port()
        stack.enter_context(harness.model_server(model_port))
        assert instance.flask("upgrade-db").returncode == 0
        instance.start()
        yield Pair(instance, daemon, model_port)
