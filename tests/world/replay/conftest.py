# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private PostgreSQL and Redis for the replay tests, started from the Debian binaries in a temporary directory.

Both can be stopped and started again (``.stop()``, ``.start()``): outages are part of what the stand-ins answer for.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STANDIN_ROOT = Path(__file__).resolve().parents[1] / "images" / "standin"
START_SECONDS = 30.0

# The replay's helpers and the stand-ins are imported by their plain names.
sys.path[:0] = [str(Path(__file__).resolve().parent), str(STANDIN_ROOT)]

from ports import free_port  # noqa: E402  # the path to it is set just above


def find_binary(name: str) -> str | None:
    """The newest of Debian's versioned PostgreSQL directories counts as if it were in PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, versions), os.environ.get("PATH", ""), "/usr/sbin"]))


def require_binary(name: str) -> str:
    found = find_binary(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: postgresql, redis-server)")
    return found


class Server:
    """One background server, reachable at host:port with a password."""

    host = "127.0.0.1"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.password = "difyai123456"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, **_as_server_user()
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self.directory / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.command()[0]} did not start: {text}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            # SIGINT is PostgreSQL's fast shutdown: clients are told and cut, as in an outage. Redis takes it as well.
            self._process.send_signal(2)
            self._process.wait(timeout=START_SECONDS)
            self._process = None


class Postgres(Server):
    user = "postgres"

    @property
    def dsn(self) -> str:
        return f"host={self.host} port={self.port} user={self.user} password={self.password} dbname=postgres"

    def create(self) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password)
        _give_away(self.directory, secret)
        subprocess.run(
            [
                require_binary("initdb"),
                "-D",
                str(self.directory / "data"),
                "-U",
                self.user,
                "-A",
                "scram-sha-256",
                "--pwfile",
                str(secret),
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            timeout=120,
            cwd=self.directory,
            **_as_server_user(),
        )

    def command(self) -> list[str]:
        return [
            require_binary("postgres"),
            "-D",
            str(self.directory / "data"),
            "-p",
            str(self.port),
            "-k",
            str(self.directory),
            "-c",
            f"listen_addresses={self.host}",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=200",
        ]

    def answers(self) -> bool:
        ready = [require_binary("pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        return subprocess.run(ready, check=False, timeout=10).returncode == 0

    def query(self, sql: str, *args: object, database: str = "postgres") -> list[tuple[object, ...]]:
        """Rows of one statement, committed at once (so that CREATE DATABASE works too)."""
        psycopg2 = pytest.importorskip("psycopg2")
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


class Redis(Server):
    def command(self) -> list[str]:
        return [
            require_binary("redis-server"),
            "--port",
            str(self.port),
            "--bind",
            self.host,
            "--dir",
            str(self.directory),
            "--requirepass",
            self.password,
            "--save",
            "",
            "--appendonly",
            "no",
            "--databases",
            "64",
        ]

    def answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return bool(sock.recv(16))
        except OSError:
            return False


def _as_server_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root, so root becomes the user that the Debian package created."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _give_away(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "postgres")


def _directory(prefix: str) -> Path:
    # Not pytest's tmp_path: its parents are 0700, and the socket path must stay short.
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    _give_away(directory)
    return directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    require_binary("initdb")
    server = Postgres(_directory("replay-pg-"))
    server.create()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    require_binary("redis-server")
    server = Redis(_directory("replay-redis-"))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.directory, ignore_errors=True)
