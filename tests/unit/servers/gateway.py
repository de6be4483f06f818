# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway for tests: a real HAProxy on loopback, and small nodes behind it that say who they are, token by token."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _gateway_nodes
from ansible_collections.llmops.stack.plugins.module_utils._gateway_nodes import Machine
from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer

DIGEST = "a" * 64
OTHER = "b" * 64


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Node:
    """Answers as Ollama does, with its name for a word."""

    def __init__(self, name: str, *models: str, digest: str = DIGEST) -> None:
        self.name = name
        self.models = dict.fromkeys(models or ("speak:latest",), digest)
        self.tokens = 3
        self.pause = 0.0
        self.first = 0.0  # seconds before anything is said
        self.break_after = -1  # tokens; the connection is cut then
        self.broken_models: set[str] = set()
        self.port = free_port()
        self.asked: list[dict[str, Any]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()
        self._links: set[socket.socket] = set()
        self.start()

    def record(self, **other: Any) -> dict[str, Any]:
        return {"name": self.name, "address": "127.0.0.1", "port": self.port, "models": self.models, **other}

    def start(self) -> None:
        node = self

        class Handler(QuietHandler):
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                node._links.add(self.connection)

            def finish(self) -> None:
                node._links.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                listed = [{"name": name, "digest": digest} for name, digest in node.models.items()]
                self.reply(200, {"version": "0.17.4", "models": listed})

            def do_POST(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    data = b"".join(self.chunks())
                else:
                    data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(data)
                node.asked.append({"path": self.path, "bytes": len(data), "headers": dict(self.headers), **body})
                node.answer(self, body)

            def chunks(self) -> Iterator[bytes]:
                while True:
                    size = int(self.rfile.readline(), 16)
                    yield self.rfile.read(size)
                    self.rfile.readline()
                    if not size:
                        return

            def reply(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = QuietServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, handler: Any, body: dict[str, Any]) -> None:
        name = body.get("model") or body.get("name")
        known = {one.partition(":")[0] for one in self.models} | set(self.models)
        if name not in known or name in self.broken_models:
            handler.reply(404 if name not in known else 500, {"error": f"model '{name}' not found"})
        elif handler.path == "/api/show":
            handler.reply(200, {"capabilities": ["completion"], "node": self.name})
        elif body.get("stream") is False:
            handler.reply(200, {"response": self.name, "done": True, "eval_count": 1, "eval_duration": 1000})
        else:
            self.stream(handler)

    def stream(self, handler: Any) -> None:
        try:
            with self._counted():
                self._tokens(handler)
            # With this a proxy takes the call for ended, and may send the next one at once.
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1

    def _tokens(self, handler: Any) -> None:
        time.sleep(self.first)
        if self.break_after == 0:
            raise ConnectionError
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for number in range(self.tokens):
            if number == self.break_after:
                raise ConnectionError
            self.say(handler, {"node": self.name, "done": False, "at": time.monotonic()})
            time.sleep(self.pause)
        self.say(handler, {"node": self.name, "done": True})

    def say(self, handler: Any, event: dict[str, Any]) -> None:
        line = json.dumps(event).encode() + b"\n"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        handler.wfile.flush()

    def kill(self) -> None:
        """As a process that dies: its port refuses, its calls are cut."""
        self._server.shutdown()
        self._server.server_close()
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


@dataclass
class LocalMachine(Machine):
    """HAProxy without systemd."""

    folder: str = ""

    def command(self, *argv: str) -> str:
        if argv != self.reload:
            return super().command(*argv)
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGUSR2)
            return ""
        return super().command(
            self.program, "-W", "-D", "-p", f"{self.folder}/pid", "-f", f"{self.folder}/home/haproxy.cfg"
        )

    def pid(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            pid = int((pathlib.Path(self.folder) / "pid").read_text())
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return 0 if state == "Z" else pid  # nobody may be there who asks how it ended
        return 0

    def stop(self) -> None:
        pid = self.pid()
        if pid:
            os.killpg(os.getpgid(pid), signal.SIGKILL)
            until(lambda: not self.pid())


class Answer:
    def __init__(self, status: int, headers: Any, lines: list[dict[str, Any]], first: float) -> None:
        self.status = status
        self.headers = headers
        self.lines = lines
        self.first = first  # seconds to the first line

    @property
    def whole(self) -> bool:
        """Whether the stream came to its end; http.client does not tell."""
        return bool(self.lines) and self.lines[-1].get("done") is True

    @property
    def node(self) -> str:
        return str(self.headers.get("X-Node"))


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, **headers)

    def chat(self, model: str = "speak", **more: Any) -> Answer:
        return self.post("/api/chat", {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more})

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, **headers)

    def request(self, method: str, path: str, data: Any, **headers: str) -> Answer:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began = time.monotonic()
        first = 0.0
        lines: list[dict[str, Any]] = []
        link.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            answer = link.getresponse()
            with contextlib.suppress(OSError):
                for line in answer:
                    first = first or time.monotonic() - began
                    lines.append(json.loads(line))
            return Answer(answer.status, answer.headers, lines, first)
        finally:
            link.close()

    def open_chat(self) -> http.client.HTTPConnection:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        link.request("POST", "/api/chat", json.dumps({"model": "speak"}))
        return link

    def arriving(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Each line with the time at which it came."""
        link = self.open_chat()
        with link.getresponse() as answer:
            for line in answer:
                yield json.loads(line), time.monotonic()
        link.close()


class Running:
    """Calls in threads of their own."""

    def __init__(self, client: Client, number: int, model: str = "speak") -> None:
        self.answers: list[Answer | Exception] = []
        self.threads = [threading.Thread(target=self._one, args=(client, model), daemon=True) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def _one(self, client: Client, model: str) -> None:
        try:
            self.answers.append(client.chat(model))
        except (OSError, http.client.HTTPException) as exc:
            self.answers.append(exc)

    def done(self) -> list[Answer]:
        for thread in self.threads:
            thread.join(30)
        assert [one for one in self.answers if isinstance(one, Exception)] == []
        return [one for one in self.answers if isinstance(one, Answer)]


def until(seen: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "this did not come to be"
        time.sleep(0.02)


class Stack:
    """The gateway, told about its nodes by the module, as a play tells it."""

    def __init__(self, run: Callable[..., dict[str, Any]], folder: pathlib.Path, machine: LocalMachine) -> None:
        self.run = run
        self.home = folder / "home"
        self.machine = machine
        self.settings: dict[str, Any] = {"bind": "127.0.0.1", "port": free_port(), "stats_port": free_port()}
        self.client = Client(self.settings["port"])

    def tell(self, check: bool = False, **options: Any) -> dict[str, Any]:
        return self.run("gateway_nodes", check, home=str(self.home), **options)

    def seen(self) -> dict[str, Any]:
        return self.run("gateway_info", home=str(self.home))

    def begin(self, *nodes: Node, parallel: int = 1, **settings: Any) -> dict[str, Any]:
        self.settings.update(settings)
        return self.tell(settings=self.settings, nodes=[node.record(parallel=parallel) for node in nodes])


@contextlib.contextmanager
def gateway(
    run: Callable[..., dict[str, Any]], folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if not program:
        pytest.fail("haproxy is not there; tools/bootstrap tests installs it")
    # The path of a socket has some hundred letters at most, which a test's own folder has already.
    place = tempfile.mkdtemp(prefix="gateway.", dir="/tmp")
    machine = LocalMachine(socket=f"{place}/admin.sock", user="", program=program, folder=str(folder))
    monkeypatch.setattr(_gateway_nodes, "Machine", lambda: machine)
    try:
        yield Stack(run, folder, machine)
    finally:
        machine.stop()
        shutil.rmtree(place)
