# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""PostgreSQL's own programs (psql, pg_dump, pg_restore), run where they are: in the release's database container, or,
for a database outside the project, in a container of the same image on the project's network.

They always come over TCP with the address, the user and the password that the API uses: what works here works there.
The password travels by environment only. What outlives its time is ended in the container and in the server, because
ending C(docker exec) alone ends neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError, last_line, mask

__all__ = ["Client", "DatabaseError", "Login", "Written"]

CONNECT_SECONDS = 10
# The server ends a statement at its time; the program has this much longer to say so, and its docker command twice.
GRACE_SECONDS = 2
_BLOCK = 1024 * 1024
_GONE = re.compile(r"No such container|is not running|container .* is paused", re.IGNORECASE)
_STATE = re.compile(r"\b(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): ")
_PLACE = re.compile(r"^(?:psql|pg_dump|pg_restore)(?::<stdin>:\d+)?: (?:error: )?", re.MULTILINE)
_WHERE = re.compile(r'connection to server at "[^"]*"(?: \([^)]*\))?, port \d+ failed: ')
# Without a state of its own in the message: what a refused login says.
_LOGIN_STATES = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("does not exist", "3D000"),
    ("no pg_hba.conf entry", "28000"),
    ("too many clients", "53300"),
    ("the database system is", "57P03"),
)


class DatabaseError(Exception):
    """What the database, or the way to it, did not do: one sentence without its full stop.

    `state` is PostgreSQL's SQLSTATE where it gave one (28P01 wrong password, 42P01 no such table, 3D000 no such
    database, 55006 in use, 42501 not allowed), C(57014) when the time was over, empty otherwise.
    """

    def __init__(self, message: str, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class Login(NamedTuple):
    host: str
    port: str
    user: str
    password: str


class Written(NamedTuple):
    """A file that a program filled."""

    bytes: int
    sha256: str


class Client:
    """Runs a program of PostgreSQL's, in the container of `service` or (service empty) in a one-off one of `image`."""

    def __init__(self, project: Any, login: Login, service: str, image: str = "") -> None:
        self.project = project
        self.login = login
        self.service = service
        self.image = image
        self._container = ""

    # -- one program, its output as text

    def text(self, argv: list[str], timeout: float, stdin: str = "", database: str = "") -> str:
        """What the program printed.

        Raises:
            DatabaseError: it failed, or it did not end in time.
        """
        for attempt in (1, 2):
            with self._started(argv, timeout, database) as (process, late):
                out, err = process.communicate(stdin.encode())
            code = process.returncode
            said = err.decode("utf-8", "replace")
            if not code:
                return out.decode("utf-8", "replace")
            # A container that was replaced since: nothing has been run yet.
            if attempt == 1 and self._container and _GONE.search(said):
                self._container = ""
                continue
            break
        raise self._failure(argv[0], code, said, timeout, late.is_set())

    # -- one program, a file at one end

    def to_file(self, argv: list[str], path: str, timeout: float, database: str = "") -> Written:
        """Writes what the program prints to a new file that only root reads; the file is gone if anything fails."""
        digest = hashlib.sha256()
        count = 0
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as exc:
            raise DatabaseError(f"{path} cannot be written: {exc.strerror}") from None
        try:
            with os.fdopen(handle, "wb") as file, self._started(argv, timeout, database) as (process, late):
                source = _pipe(process.stdout)
                _pipe(process.stdin).close()
                said = _Drain(_pipe(process.stderr))
                for block in iter(lambda: source.read(_BLOCK), b""):
                    file.write(block)
                    digest.update(block)
                    count += len(block)
                file.flush()
                os.fsync(file.fileno())
                process.wait()
            if process.returncode:
                raise self._failure(argv[0], process.returncode, said.text(), timeout, late.is_set())
        except OSError as exc:
            _forget(path)
            raise DatabaseError(f"{path} cannot be written: {exc.strerror}") from None
        except BaseException:
            _forget(path)
            raise
        return Written(count, digest.hexdigest())

    def from_file(self, argv: list[str], path: str, timeout: float, database: str = "") -> str:
        """Feeds a file to the program; what it printed."""
        try:
            file = open(path, "rb")  # noqa: SIM115  # closed right below, whose errors are others
        except OSError as exc:
            raise DatabaseError(f"{path} cannot be read: {exc.strerror}") from None
        with file, self._started(argv, timeout, database) as (process, late):
            sink = _pipe(process.stdin)
            out, said = _Drain(_pipe(process.stdout)), _Drain(_pipe(process.stderr))
            # A program that has seen enough closes its end: what it says and its code tell why.
            with contextlib.suppress(BrokenPipeError):
                for block in iter(lambda: file.read(_BLOCK), b""):
                    sink.write(block)
            with contextlib.suppress(BrokenPipeError):
                sink.close()
            process.wait()
        if process.returncode:
            raise self._failure(argv[0], process.returncode, said.text(), timeout, late.is_set())
        return out.text()

    # -- one session that stays open

    def session(self, timeout: float, database: str) -> tuple[subprocess.Popen[bytes], str]:
        """A psql that reads statements from its standard input until that closes, and its name among the sessions."""
        name = _session_name()
        command, env = self._command(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"], timeout, database, name)
        return self._popen(command, env, merged=True), name

    def end(self, name: str) -> None:
        """End what this session left running in the server. It is only tidying: whoever calls has its error already."""
        statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
        command, env = self._command(["psql", "-X", "-q", "-c", statement], CONNECT_SECONDS * 2, "", _session_name())
        with contextlib.suppress(DatabaseError, OSError, subprocess.SubprocessError):
            process = self._popen(command, env)
            process.communicate(timeout=CONNECT_SECONDS * 3)

    # -- the parts

    @contextlib.contextmanager
    def _started(
        self, argv: list[str], timeout: float, database: str
    ) -> Iterator[tuple[subprocess.Popen[bytes], threading.Event]]:
        """The program; it is ended everywhere when its time is over or the block is left early."""
        name = _session_name()
        command, env = self._command(argv, timeout, database, name)
        process = self._popen(command, env)
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout + 2 * GRACE_SECONDS, expire)
        timer.daemon = True
        timer.start()
        try:
            yield process, late
        finally:
            timer.cancel()
            early = process.poll() is None
            if early:
                process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()
            if early or late.is_set():
                self.end(name)

    def _command(self, argv: list[str], timeout: float, database: str, name: str) -> tuple[list[str], dict[str, str]]:
        env = {
            "PGHOST": self.login.host,
            "PGPORT": self.login.port,
            "PGUSER": self.login.user,
            "PGPASSWORD": self.login.password,
            "PGDATABASE": database or "postgres",
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": name,
            "LC_ALL": "C.UTF-8",
        }
        names = [part for key in env for part in ("-e", key)]
        limited = ["timeout", str(max(1, round(timeout + GRACE_SECONDS))), *argv]
        if self.service:
            return [self.project.docker.program, "exec", "-i", *names, self._in_container(), *limited], env
        network = f"{self.project.name}_default"
        options = ["--rm", "-i", "--network", network, "--entrypoint", ""]
        return [self.project.docker.program, "run", *options, *names, self.image, *limited], env

    def _in_container(self) -> str:
        if not self._container:
            try:
                found = self.project.container(self.service)
            except DockerError as exc:
                raise DatabaseError(f"the container of {self.service} cannot be looked for: {exc}") from None
            if found is None or not found.running:
                state = f"is {found.state}" if found is not None else "does not exist"
                raise DatabaseError(f"the database cannot be asked: the container of {self.service} {state}")
            self._container = found.id
        return self._container

    def _popen(self, command: list[str], env: dict[str, str], merged: bool = False) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                env={**os.environ, **env},
            )
        except OSError as exc:
            raise DatabaseError(f"the docker command cannot be started ({exc.strerror})") from None

    def _failure(self, program: str, code: int, said: str, timeout: float, late: bool) -> DatabaseError:
        # 124 is timeout's own, 143 what busybox's gives for what it has ended; a killed client comes as -9.
        if late or code in (124, 143):
            return DatabaseError(f"{program} did not finish within {timeout:g} s", "57014")
        return failure(program, said, f"exit code {code}", self.login)


def failure(program: str, said: str, otherwise: str, login: Login) -> DatabaseError:
    """The error in what a program of PostgreSQL's said: its first complaint, with its details, without a secret."""
    state = _STATE.search(said)
    lines = [line.strip() for line in _PLACE.sub("", said).splitlines() if line.strip()]
    first = next((line for line in lines if re.search(r"\b(ERROR|FATAL|PANIC):|failed: ", line)), "")
    text = _WHERE.sub("", _STATE.sub("", first)) or last_line(said) or otherwise
    details = [line for line in lines if line.startswith(("DETAIL:", "HINT:"))]
    text = " ".join([text.replace("FATAL:  ", "").replace("ERROR:  ", ""), *details]).rstrip(". ")
    where = f"{login.user}@{login.host}:{login.port}"
    known = state.group(1) if state else next((code for words, code in _LOGIN_STATES if words in said), "")
    return DatabaseError(mask(f"{program} at {where}: {text}", {login.password}), known)


class _Drain:
    """Reads a pipe to its end beside the main work, so that nobody waits for nobody."""

    def __init__(self, pipe: IO[bytes], limit: int = 256 * 1024) -> None:
        self._data = b""
        self._limit = limit
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for block in iter(lambda: pipe.read1(65536), b""):  # type: ignore[attr-defined]  # Popen's are buffered
                self._data = (self._data + block)[-self._limit :]

    def text(self) -> str:
        self._thread.join(5)
        return self._data.decode("utf-8", "replace")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise AssertionError("the process was started with this pipe")
    return pipe


def _session_name() -> str:
    return f"llmops.stack-{secrets.token_hex(6)}"


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
