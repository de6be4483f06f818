# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP server with the one property of Dify's that matters in a fault: a bounded number of connections.

gunicorn accepts no more connections than workers x worker_connections. Whatever comes beyond that waits in the kernel's
queue, /health included, until somebody's request ends. The same happens here: accept() waits for a free slot.
"""

from __future__ import annotations

import email.parser
import email.policy
import http.server
import json
import re
import signal
import socket
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any

GRACEFUL_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 2.0


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: email.message.Message
    body: bytes
    client: str = "127.0.0.1"
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def is_json(self) -> bool:
        return self.headers.get_content_type() == "application/json"

    def json(self) -> Any:
        """The decoded body, {} for an empty one, None for one that cannot be decoded."""
        try:
            return json.loads(self.body.decode() or "{}")
        except ValueError:
            return None

    def cookie(self, name: str) -> str:
        jar: SimpleCookie = SimpleCookie()
        jar.load(self.headers.get("Cookie") or "")
        return jar[name].value if name in jar else ""

    def bearer(self) -> str:
        scheme, _, value = (self.headers.get("Authorization") or "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else ""

    def files(self) -> dict[str, bytes]:
        """The parts of a multipart form by field name."""
        return {field: content for field, (_name, content) in self.named_files().items()}

    def named_files(self) -> dict[str, tuple[str, bytes]]:
        """The same with the names that the files have."""
        raw = b"Content-Type: " + (self.headers.get("Content-Type") or "").encode() + b"\r\n\r\n" + self.body
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
        found: dict[str, tuple[str, bytes]] = {}
        for part in message.iter_parts() if message.is_multipart() else ():
            content = part.get_payload(decode=True)
            name = str(part.get_param("name", header="content-disposition"))
            found[name] = (part.get_filename() or "", content if isinstance(content, bytes) else b"")
        return found


@dataclass
class Response:
    status: int = 200
    body: bytes | Iterable[bytes] = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)


Handler = Callable[..., Response]


def html_error(status: int, text: str = "") -> Response:
    """A werkzeug error page, which is what a client gets where no API framework is in charge."""
    name = HTTPStatus(status).phrase
    page = (
        f"<!doctype html>\n<html lang=en>\n<title>{status} {name}</title>\n<h1>{name}</h1>\n"
        f"<p>{text or HTTPStatus(status).description}</p>\n"
    )
    return Response(status, page.encode(), "text/html; charset=utf-8")


class Router:
    """Routes like "/apps/<id>" (one segment) and "/providers/<path:provider>/models" (several)."""

    def __init__(self) -> None:
        self.routes: list[tuple[re.Pattern[str], str, Handler]] = []

    def add(self, methods: str, pattern: str, handler: Handler) -> None:
        expression = re.sub(r"<(path:)?(\w+)>", lambda part: f"(?P<{part[2]}>{'.+?' if part[1] else '[^/]+'})", pattern)
        compiled = re.compile(f"{expression}$")
        for method in methods.split():
            self.routes.append((compiled, method, handler))

    def find(self, method: str, path: str) -> tuple[Handler | None, dict[str, str], list[str]]:
        """The handler and its arguments; without one, the methods that the path does allow."""
        allowed: list[str] = []
        for pattern, route_method, handler in self.routes:
            match = pattern.match(path)
            if match is None:
                continue
            if route_method == ("GET" if method == "HEAD" else method):
                return handler, match.groupdict(), []
            allowed.append(route_method)
        return None, {}, allowed


class SlottedServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2048
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler], slots: int) -> None:
        super().__init__(address, handler)
        self.slots = threading.BoundedSemaphore(slots) if slots else None
        self.active = 0
        self.lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        if self.slots is None:
            return super().get_request()
        self.slots.acquire()
        try:
            return super().get_request()
        except BaseException:
            self.slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.active += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.lock:
                self.active -= 1
            if self.slots is not None:
                self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


def make_handler(answer: Callable[[Request], Response], access_log: Callable[[], bool]) -> type:
    class HttpHandler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "gunicorn"
        sys_version = ""
        timeout = 60.0

        def setup(self) -> None:
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

        def _body(self) -> bytes:
            if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _handle(self) -> None:
            # Idle keep-alive connections are dropped soon; a request under way may take as long as it likes.
            self.connection.settimeout(600)
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            request = Request(
                self.command, urllib.parse.unquote(url.path), query, self.headers, self._body(), self.client_address[0]
            )
            self._send(answer(request))
            self.connection.settimeout(KEEP_ALIVE_SECONDS)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _handle

        def _send(self, response: Response) -> None:
            self.send_response(response.status)
            if response.status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Type", response.content_type)
            for name, value in response.headers:
                self.send_header(name, value)
            if isinstance(response.body, bytes):
                if response.status != HTTPStatus.NO_CONTENT:
                    self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(response.body)
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self._stream(iter(response.body))

        def _stream(self, pieces: Iterator[bytes]) -> None:
            try:
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True
            finally:
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()

        def log_message(self, format: str, *args: Any) -> None:
            if access_log():
                sys.stderr.write(f"{self.client_address[0]} - - {format % args}\n")

    return HttpHandler


def serve(
    answer: Callable[[Request], Response],
    port: int,
    *,
    address: str = "0.0.0.0",
    slots: int = 0,
    access_log: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish, as gunicorn does, for GRACEFUL_SECONDS."""
    server = SlottedServer((address, port), make_handler(answer, access_log), slots)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=finish, daemon=True).start()

    def finish() -> None:
        server.socket.close()
        deadline = time.monotonic() + GRACEFUL_SECONDS
        while server.active and time.monotonic() < deadline:
            time.sleep(0.1)
        done.set()

    done = threading.Event()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    done.wait()


def _accept(server: SlottedServer) -> None:
    try:
        server.serve_forever(poll_interval=0.5)
    except (OSError, ValueError):
        return  # the listener was closed by stop()
