# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as the daemon speaks it: its envelope, its error objects, its routes' 404, its event streams."""

from __future__ import annotations

import email.message
import http.server
import itertools
import json
import re
import select
import socket
import sys
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

JSON = "application/json; charset=utf-8"
SSE = "text/event-stream"


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    location: str = ""


@dataclass
class EventStream:
    """Events of one call. The status line is sent with the first of them, as the daemon does."""

    events: Iterator[dict[str, Any]]


class Abort(Exception):
    """Ends a request with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass
class Call:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: email.message.Message
    body: bytes
    gone: Callable[[], bool]
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def is_json(self) -> bool:
        return self.headers.get("Content-Type", "").split(";")[0].strip() == "application/json"

    def parameters(self) -> dict[str, Any]:
        """What the daemon binds: the body of a JSON request, GET or not, else the query. Unreadable is empty."""
        if not self.is_json:
            return dict(self.query) if self.method == "GET" else {}
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def ok(data: Any) -> Reply:
    return Reply(200, dumps({"code": 0, "message": "success", "data": data}).encode())


_TYPES = {
    -400: "PluginDaemonBadRequestError",
    -401: "PluginDaemonUnauthorizedError",
    -404: "PluginDaemonNotFoundError",
    -500: "PluginDaemonInternalServerError",
}


def error_object(code: int, text: str, error_type: str = "") -> dict[str, Any]:
    message = dumps({"message": text, "error_type": error_type or _TYPES[code], "args": None})
    return {"code": code, "message": message, "data": None}


def failure(code: int, text: str, status: int = 200, error_type: str = "") -> Reply:
    return Reply(status, dumps(error_object(code, text, error_type)).encode())


def not_found_plugin(status: int = 200) -> Reply:
    return failure(-404, "plugin not found", status, "PluginNotFoundError")


def invalid(*failed: tuple[str, str, str]) -> Reply:
    """400 for (key, field, rule) that a request's validation refused."""
    return failure(
        -400,
        "\n".join(
            f"Key: '{key}' Error:Field validation for '{name}' failed on the '{rule}' tag" for key, name, rule in failed
        ),
        400,
    )


class Routes:
    """Patterns like "GET /plugin/:tenant_id/asset/:id"; a segment may be empty, as in the daemon's router."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], str, Callable[[Call], Any]]] = []

    def add(self, rule: str, handler: Callable[[Call], Any]) -> None:
        method, path = rule.split(" ")
        pattern = re.sub(r"/:(\w+)", r"/(?P<\1>[^/]*)", path)
        pattern = re.sub(r"/\*(\w+)", r"/(?P<\1>.*)", pattern)
        self._routes.append((method, re.compile(f"{pattern}$"), path, handler))

    def find(self, method: str, path: str) -> tuple[Callable[[Call], Any] | None, str, dict[str, str]]:
        for known, pattern, shown, handler in self._routes:
            match = pattern.match(path)
            if known == method and match:
                return handler, shown, match.groupdict()
        return None, "", {}

    def redirect(self, method: str, path: str) -> str:
        """Where a path with a slash too many or too few leads."""
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        return other if method == "GET" and other and self.find(method, other)[0] else ""


def make_handler(answer: Callable[[Call], Reply | EventStream]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(self.command, urllib.parse.unquote(url.path), query, self.headers, body, self._gone)
            reply = answer(call)
            if isinstance(reply, EventStream):
                self._stream(reply.events)
            else:
                self._send(reply)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _handle

        def _head(self, status: int, content_type: str) -> None:
            self.send_response_only(status)
            if content_type:
                self.send_header("Content-Type", content_type)
            self.send_header("Date", formatdate(usegmt=True))

        def _send(self, reply: Reply) -> None:
            self._head(reply.status, reply.content_type)
            if reply.location:
                self.send_header("Location", reply.location)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        def _stream(self, events: Iterator[dict[str, Any]]) -> None:
            try:
                first = next(events, None)
            except Abort as abort:
                self._send(abort.reply)
                return
            self._head(200, SSE)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in itertools.chain([] if first is None else [first], events):
                line = f"data: {dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")

        def _gone(self) -> bool:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that leave are no event worth a line; anything else is a fault of this program.
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()
