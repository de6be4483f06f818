#!/usr/bin/python3
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bin/ollama of releases that cannot be had: the real server of an older one, behind a proxy that changes little.

lib/ollama/world.json says which version this is, and which one really answers (none: the server does not start).
/etc/llmops-world/ollama.json on the node, read at start and at every request, tells it to misbehave:

    gpu         nvidia | amd          what the log and /api/ps say; at start, and unless the environment hides it
    vram_share  0.0 .. 1.0            the part of a loaded model that /api/ps puts on that GPU (1.0)
    version     <version>             what /api/version says
    start       crash | slow:<s>
    generate    500 | hang | slow:<s> every request that makes a model work
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LIBRARIES = Path(__file__).resolve().parent.parent / "lib" / "ollama"
SWITCHES = Path("/etc/llmops-world/ollama.json")
PROGRAM = LIBRARIES / "world" / "ollama"
INFERENCE = re.compile(
    r"/api/(generate|chat|embed|embeddings)|/v1/(chat/completions|completions|embeddings|responses|messages)"
)
# From here on inference is a program of its own.
SEPARATE = (0, 30, 0)
OF_ONE_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection")
GPUS = {
    "nvidia": (
        'id=GPU-6d0c1b52-9c1f-4f7e-8a44-3b1e5a7c2d10 filter_id="" library=CUDA compute=8.9 name=CUDA0 '
        'description="NVIDIA GeForce RTX 4060 Ti" libdirs=ollama,cuda_v13 driver=13.0 pci_id=0000:01:00.0 '
        'type=discrete total="16.0 GiB" available="15.6 GiB"'
    ),
    "amd": (
        'id=0 filter_id="" library=ROCm compute=gfx1100 name=ROCm0 description="AMD Radeon RX 7800 XT" '
        'libdirs=ollama,rocm_v7 driver=70051.83 pci_id=0000:03:00.0 type=discrete total="16.0 GiB" available="15.9 GiB"'
    ),
}
HIDING = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
}


def told(name: str) -> Any:
    """The value of a switch, "" when it is not set. A broken file is loud: no test may pass because of a typo."""
    try:
        return json.loads(SWITCHES.read_text()).get(name, "")
    except FileNotFoundError:
        return ""


def seconds(value: object) -> float:
    """30.0 of "slow:30", 0.0 of anything else."""
    name, _, amount = str(value).partition(":")
    return float(amount or 5) if name == "slow" else 0.0


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Where OLLAMA_HOST tells to listen, read as the real one reads it."""
    text = environment.get("OLLAMA_HOST", "").strip(" \"'\t")
    scheme, separator, rest = text.partition("://")
    port = {"http": 80, "https": 443}.get(scheme, 11434) if separator else 11434
    rest = (rest if separator else text).split("/")[0]
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*|.*:.*:.*?)(?::([^:]*))?", rest)
    host = (found[1] if found else rest).strip("[]")
    if found and found[2] is not None:
        port = int(found[2]) if found[2].isdigit() and int(found[2]) < 65536 else 11434
    return host or "127.0.0.1", port


def gpu(environment: Mapping[str, str], wanted: str) -> str:
    """The GPU to play, unless the environment takes it away as it does from the real server."""
    if wanted not in GPUS or environment.get("OLLAMA_LLM_LIBRARY", "").startswith("cpu"):
        return ""
    hidden = any(environment.get(name, "0") in ("", "-1") for name in HIDING[wanted])
    return "" if hidden else wanted


class Server:
    """What this process knows: who it claims to be, where it listens, and where the real server does."""

    def __init__(self, world: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.version, self.real = world["version"], world["real"]
        self.host, self.port = address(environment)
        self.loopback = self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"
        self.gpu = gpu(environment, str(told("gpu")))
        self.inner = 0

    @property
    def shown(self) -> str:
        if self.host in ("0.0.0.0", "::"):
            return f"[::]:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def log(self, line: str) -> str:
        """A line of the real server's log as this release would write it."""
        if 'msg="server config"' in line:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return line.replace(f"127.0.0.1:{self.inner}", f"{host}:{self.port}")
        if self.gpu and 'msg="inference compute"' in line:
            return re.sub(r'(msg="inference compute") .*', lambda found: f"{found[1]} {GPUS[self.gpu]}", line)
        if self.gpu and "total_vram=" in line:
            return re.sub(r'total_vram="[^"]*"', 'total_vram="16.0 GiB"', line)
        return line.replace(f"127.0.0.1:{self.inner}", self.shown).replace(
            f"version {self.real}", f"version {self.version}"
        )

    def rewrite(self, path: str, answer: Any) -> Any:
        if path == "/api/version":
            return {"version": told("version") or self.version}
        if path == "/api/ps" and self.gpu:
            share = told("vram_share")
            for model in answer["models"]:
                model["size_vram"] = int(model["size"] * float(1 if share == "" else share))
        return answer

    def refusal(self, path: str) -> tuple[int, str] | None:
        """What keeps a request from the real server: a missing program, or a switch."""
        if not INFERENCE.fullmatch(path):
            return None
        program = LIBRARIES / "llama-server"
        if tuple(int(part) for part in self.version.split(".")) >= SEPARATE and not program.is_file():
            return 500, f"llama-server binary not found (checked: {program})"
        trouble = told("generate")
        if str(trouble) == "hang":
            time.sleep(3600)
        time.sleep(seconds(trouble))
        return (500, "llama runner process has terminated: exit status 2") if str(trouble) == "500" else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _handle(self) -> None:
        path = self.path.split("?")[0]
        refusal = self.state.refusal(path)
        if refusal:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._whole(refusal[0], json.dumps({"error": refusal[1]}).encode(), "application/json; charset=utf-8")
            return
        inner = http.client.HTTPConnection("127.0.0.1", self.state.inner)
        try:
            with self._asked(inner):
                reply = inner.getresponse()
                self._answer(path, reply)
        except (ConnectionError, http.client.HTTPException):
            self.close_connection = True  # somebody is gone, in front or behind
        finally:
            inner.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _handle

    def _answer(self, path: str, reply: http.client.HTTPResponse) -> None:
        if path in ("/api/version", "/api/ps") and reply.status == 200 and self.command == "GET":
            answer = json.dumps(self.state.rewrite(path, json.loads(reply.read())), separators=(",", ":"))
            self._whole(200, answer.encode(), reply.headers["Content-Type"])
        else:
            self._pass_on(reply)

    @contextlib.contextmanager
    def _asked(self, inner: http.client.HTTPConnection) -> Iterator[None]:
        """Hands the request on. When the client goes, the real server learns it at once, and cancels what was asked."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OF_ONE_CONNECTION}
        if not self.state.loopback:
            headers["Host"] = "localhost"  # as the real one, which asks for a known name on a loopback address only
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        inner.request(self.command, self.path, self._body(chunked), headers, encode_chunked=chunked)
        over, told = socket.socketpair()
        threading.Thread(target=self._watch, args=(inner.sock, over), daemon=True).start()
        try:
            yield
        finally:
            told.close()

    def _watch(self, behind: socket.socket, over: socket.socket) -> None:
        with over, contextlib.suppress(OSError):
            readable, _, _ = select.select([self.connection, over], [], [])
            if over not in readable and not self.connection.recv(1, socket.MSG_PEEK):
                behind.shutdown(socket.SHUT_RDWR)

    def _body(self, chunked: bool) -> Iterator[bytes] | None:
        if chunked:
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        return self._pieces(length) if length else None

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left and (piece := self.rfile.read(min(left, 1 << 20))):
            left -= len(piece)
            yield piece

    def _whole(self, status: int, body: bytes, kind: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, reply: http.client.HTTPResponse) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in OF_ONE_CONNECTION:
                self.send_header(name, value)
        counted = "Content-Length" in reply.headers
        bodyless = self.command == "HEAD" or reply.status in (204, 304)
        if not counted and not bodyless:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if bodyless:
            return
        while piece := reply.read1(1 << 16):
            self.wfile.write(piece if counted else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not counted:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """The real server logs the requests."""


class Listener(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state: Server) -> None:
        everywhere = state.host in ("0.0.0.0", "::") and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if everywhere or ":" in state.host else socket.AF_INET
        self._everywhere = everywhere
        where = ("::" if everywhere else state.host, state.port)
        super().__init__(where, type("Bound", (Handler,), {"state": state}), bind_and_activate=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        if self._everywhere:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super(http.server.HTTPServer, self).server_bind()  # HTTPServer's own asks the name service who it is


def serve(world: Mapping[str, str]) -> int:
    state = Server(world, os.environ)
    if not state.real or str(told("start")) == "crash":
        return _fail(f"could not initialize the engine: Ollama {state.version} is told not to start")
    time.sleep(seconds(told("start")))
    listener = Listener(state)
    try:
        listener.server_bind()
    except OSError as problem:
        return _fail(f"listen tcp {state.host}:{state.port}: bind: {(problem.strerror or str(problem)).lower()}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        state.inner = free.getsockname()[1]
    environment = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{state.inner}"}
    child = subprocess.Popen([PROGRAM, "serve"], env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    assert child.stderr is not None
    for line in child.stderr:
        sys.stderr.write(state.log(line))
        sys.stderr.flush()
        if "Listening on" in line:
            listener.server_activate()
            threading.Thread(target=listener.serve_forever, daemon=True).start()
    return child.wait()


def version(world: Mapping[str, str]) -> int:
    """The server's version first, and this program's where it is another one."""
    own = world["version"]
    host, port = address(os.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/api/version", timeout=10) as reply:
            server = json.load(reply)["version"]
    except OSError:
        print(f"Warning: could not connect to a running Ollama instance\nWarning: client version is {own}")
        return 0
    print(f"ollama version is {server}")
    if server != own:
        print(f"Warning: client version is {own}")
    return 0


def _fail(reason: str) -> int:
    print(f"Error: {reason}", file=sys.stderr)
    return 1


def main() -> int:
    world = json.loads((LIBRARIES / "world.json").read_text())
    command = sys.argv[1:2]
    if command in (["--version"], ["-v"]):
        return version(world)
    if command in (["serve"], ["start"]):
        return serve(world)
    if not world["real"]:
        return _fail("could not connect to ollama server, run 'ollama serve' to start it")
    os.execv(PROGRAM, ["ollama", *sys.argv[1:]])  # noqa: S606 - this process becomes the real client


if __name__ == "__main__":
    sys.exit(main())
