"""An HTTP server that says, byte for byte and second for second, what a test tells it to say."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.tests.unit.servers.quiet import QuietHandler, QuietServer


@dataclass
class Reply:
    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    # Pieces of a chunked body, sent instead of `body`.
    pieces: list[str] | None = None
    # Seconds between two pieces.
    pause: float = 0.0
    # What comes at the end: a proper end, silence, or a torn connection.
    ending: str = "end"
    # Silence instead of any answer.
    hang: bool = False


def as_json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(data), headers=headers or {})


def events(*data: str, ending: str = "end", pause: float = 0.0) -> Reply:
    """A server-sent stream of these data lines."""
    pieces = [f"data: {one}\n\n" for one in data]
    return Reply(content_type="text/event-stream", pieces=pieces, ending=ending, pause=pause)


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request], Reply]


class Scripted:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.over = threading.Event()
        owner = self

        class Handler(QuietHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                path, _mark, query = self.path.partition("?")
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, path, query, headers, body)
                owner.requests.append(request)
                self._send(owner.answer(request))

            do_GET = do_POST = _serve

            def _send(self, reply: Reply) -> None:
                self.close_connection = True
                if reply.hang:
                    owner.over.wait()
                    return
                # The other one adds a Date of its own.
                (self.send_response_only if "Date" in reply.headers else self.send_response)(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", reply.content_type)
                if reply.pieces is None:
                    self.send_header("Content-Length", str(len(reply.body.encode())))
                    self.end_headers()
                    self.wfile.write(reply.body.encode())
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in reply.pieces:
                    if owner.over.wait(reply.pause):
                        return
                    self.wfile.write(f"{len(piece.encode()):x}\r\n{piece}\r\n".encode())
                    self.wfile.flush()
                if reply.ending == "silence":
                    owner.over.wait()
                elif reply.ending == "torn":
                    # Lingering for 0 s makes the close a reset.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                else:
                    self.wfile.write(b"0\r\n\r\n")

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, path: str) -> list[Request]:
        return [one for one in self.requests if one.path == path]

    @contextmanager
    def running(self) -> Iterator[Scripted]:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.over.set()
            self.server.shutdown()
            self.server.server_close()
