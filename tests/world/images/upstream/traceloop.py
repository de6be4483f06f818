#!/usr/bin/python3
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What api.traceloop.com is to a sender of traces: OTLP over HTTP that wants a key, behind nginx at /otlp.

    POST   /otlp/v1/traces, /otlp/v1/metrics     protobuf or JSON, also compressed, with `Authorization: Bearer KEY`
    GET    /otlp/received[?node=NAME]            what arrived, of all or of one node, since the start or the last DELETE
    DELETE /otlp/received                        forgets it

A key is never kept, only its SHA-256. Trouble is told by `world.py switch NODE traceloop …`:

    status=500     answers with this status
    wait=30        seconds before every answer
    drop=true      ends the connection without an answer
    key=SECRET     refuses every other key with 401; without this switch any key will do, but there has to be one
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import http.server
import json
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from shelves import CONTAINER, Server, trouble

KEPT = 1000  # spans, of all nodes
# Where a message holds its messages: field numbers down to the span or metric.
PATHS = {"traces": (1, 2, 2), "metrics": (1, 2, 2)}
JSON_PATHS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """A protobuf message's fields: numbers for what is a varint or of fixed size, bytes for the rest."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = struct.unpack_from("<Q" if kind == 1 else "<I", message, at)[0], at + size
        elif kind == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("cut off")
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def below(message: bytes, path: tuple[int, ...]) -> Iterator[bytes]:
    if not path:
        yield message
        return
    for number, value in fields(message):
        if number == path[0]:
            yield from below(value, path[1:])


def _any(message: bytes) -> Any:
    for number, value in fields(message):
        if number == 1:
            return value.decode(errors="replace")
        if number == 4:
            return struct.unpack("<d", struct.pack("<Q", value))[0]
        return bool(value) if number == 2 else value if number == 3 else "…"
    return None


def _span(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"attributes": {}}
    for number, value in fields(message):
        if number == 1:
            found["trace_id"] = value.hex()
        elif number == 2:
            found["span_id"] = value.hex()
        elif number == 5:
            found["name"] = value.decode(errors="replace")
        elif number == 9:
            pair = dict(fields(value))
            found["attributes"][pair[1].decode()] = _any(pair.get(2, b""))
    return found


def _json_span(span: dict[str, Any]) -> dict[str, Any]:
    attributes = {}
    for one in span.get("attributes", []):
        ((kind, value),) = one["value"].items()
        attributes[one["key"]] = int(value) if kind == "intValue" else value
    found = {"trace_id": span.get("traceId"), "span_id": span.get("spanId"), "name": span.get("name")}
    return {**found, "attributes": attributes}


def decoded(signal: str, body: bytes, kind: str) -> list[dict[str, Any]]:
    """The spans, or the names of the metrics, in a request."""
    if kind == "application/json":
        level = [json.loads(body or b"{}")]
        for name in JSON_PATHS[signal]:
            level = [inner for outer in level for inner in outer.get(name, [])]
        return [_json_span(one) if signal == "traces" else {"name": one.get("name")} for one in level]
    found = []
    for message in below(body, PATHS[signal]):
        found.append(_span(message) if signal == "traces" else {"name": dict(fields(message)).get(1, b"").decode()})
    return found


class Received:
    """What each client sent. Counters are for ever, of the spans the last ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self._metrics: collections.Counter[tuple[str, str]] = collections.Counter()
        self._keys: dict[tuple[str, str], None] = {}
        self._spans: collections.deque[tuple[str, dict[str, Any]]] = collections.deque(maxlen=KEPT)
        self._bytes: collections.Counter[str] = collections.Counter()

    def forget(self) -> None:
        with self._lock:
            for kept in (self._requests, self._metrics, self._keys, self._spans, self._bytes):
                kept.clear()

    def note(self, client: str, signal: str, status: int, size: int, key: str, items: list[dict[str, Any]]) -> None:
        with self._lock:
            self._requests[client, signal, status] += 1
            self._bytes[client] += size
            self._keys[client, hashlib.sha256(key.encode()).hexdigest() if key else ""] = None
            if signal == "traces":
                self._spans.extend((client, one) for one in items)
            else:
                self._metrics.update((client, one["name"]) for one in items)

    def report(self, client: str | None) -> dict[str, Any]:
        with self._lock:
            requests: dict[str, dict[str, int]] = {"traces": {}, "metrics": {}}
            for (sender, signal, status), number in self._requests.items():
                if client in (None, sender):
                    requests[signal][str(status)] = requests[signal].get(str(status), 0) + number
            names = {name: number for (sender, name), number in self._metrics.items() if client in (None, sender)}
            return {
                "requests": requests,
                "bytes": sum(number for sender, number in self._bytes.items() if client in (None, sender)),
                "keys_sha256": [key for sender, key in self._keys if client in (None, sender)],
                "metrics": names,
                "spans": [span for sender, span in self._spans if client in (None, sender)],
            }


RECEIVED = Received()


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signal = self.path.removeprefix("/otlp/v1/")
        if signal not in PATHS:
            return self._json(404, {"message": "there are /otlp/v1/traces and /otlp/v1/metrics"})
        client = self.headers.get("X-Real-IP", "")
        told = trouble("traceloop", client)
        time.sleep(float(told.get("wait", 0)))
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        kind = self.headers.get("Content-Type", "").split(";")[0]
        items: list[dict[str, Any]] = []
        dropped = bool(told.get("drop"))
        status = 444 if dropped else int(told.get("status", 200))
        if not dropped and (scheme != "Bearer" or not key or key != str(told.get("key", key))):
            status = 401
        elif status == 200:
            try:
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                items = decoded(signal, body, kind)
            except (ValueError, KeyError, OSError, EOFError, AttributeError, struct.error):
                status = 400
        RECEIVED.note(client, signal, status, len(body), key, items)
        if dropped:
            return self._send(200, b"", "text/plain", **{"X-Accel-Redirect": "/drop"})
        if status != 200:
            return self._json(status, {"message": "no valid key" if status == 401 else "out of order"})
        if kind == "application/json":
            return self._json(200, {"partialSuccess": {}})
        self._send(200, b"", "application/x-protobuf")

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path != "/otlp/received":
            return self._json(404, {"message": "there is /otlp/received"})
        node = dict(urllib.parse.parse_qsl(url.query)).get("node")
        try:
            client = socket.gethostbyname(CONTAINER.format(node)) if node else None
        except OSError:
            return self._json(404, {"message": f"no node is called {node}"})
        self._json(200, RECEIVED.report(client))

    def do_DELETE(self) -> None:
        RECEIVED.forget()
        self._json(200, {})

    def _json(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass  # nginx writes down what was asked


if __name__ == "__main__":
    Server(("127.0.0.1", 8083), Backend).serve_forever()
