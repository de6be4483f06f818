# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OTLP over HTTP with the standard library: one address, one kept connection, our settings' headers and no others.

http.client and not requests: that one adds ~/.netrc, follows redirects, and has a timeout for each read alone, with
which a collector that answers a byte at a time holds up the queue for ever.
"""

from __future__ import annotations

import base64
import enum
import http.client
import io
import json
import re
import socket
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

ANSWER = 65536  # bytes of an answer worth reading; a connection with more to come is closed
AGENT = "llmops-monitoring"
PARTIAL = "the backend took a request and rejected a part of it"


class Delivery(enum.Enum):
    """What became of a request."""

    TAKEN = 1
    RETRY = 2
    REFUSED = 3


class Answer(NamedTuple):
    delivery: Delivery
    problem: str = ""
    rejected: int = 0  # spans or points of a request that was taken


def rejections(content_type: str, body: bytes) -> int:
    """How much of a request that was taken the backend says it threw away: OTLP's partial success.

    Its message is not read: it may quote what was sent.
    """
    try:
        if "json" in content_type:
            partial = json.loads(body or b"{}").get("partialSuccess") or {}
            said = partial.get("rejectedSpans") or partial.get("rejectedDataPoints") or 0
        elif "protobuf" in content_type:
            said = _field_1(_field_1(body, b""), 0)
        else:
            return 0
        return max(0, int(said))
    except (ValueError, TypeError, AttributeError, IndexError):  # no answer of OTLP
        return 0


def _field_1(message: bytes, default: Any) -> Any:
    """Field 1 of a protobuf message, a number or bytes: all that the two messages of that answer need."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            found: Any = value if value < 2**63 else 0
        elif key & 7 == 2:
            length, at = _varint(message, at)
            found, at = message[at : at + length], at + length
        else:
            raise ValueError
        if key >> 3 == 1:
            return found
    return default


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


def verdict(status: int) -> Delivery:
    """From an HTTP status. A redirect is a refusal: spans and a key go to the host they were meant for only."""
    if 200 <= status < 300:
        return Delivery.TAKEN
    return Delivery.RETRY if status in (408, 429) or status >= 500 else Delivery.REFUSED


class Transport:
    """For one thread at a time."""

    def __init__(self, url: str, headers: Mapping[str, str], content_type: str, certificate: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self._secure = parts.hostname or "", parts.scheme == "https"
        self.port = parts.port or (443 if self._secure else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": content_type, "User-Agent": AGENT, **headers}
        self._certificate = certificate
        self._tls: ssl.SSLContext | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._proxy: urllib.parse.SplitResult | None = None
        # A name without a dot is one of this network, as the collector's is, which no proxy can look up.
        direct = not re.search("[.:]", self.host) or urllib.request.proxy_bypass(self.host)
        proxy = None if direct else urllib.request.getproxies().get(parts.scheme)
        if proxy:
            self._proxy = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
            if not self._secure:
                self._target = f"http://{parts.netloc.rpartition('@')[2]}{self._target}"
                self._headers.update(_login(self._proxy))

    def post(self, body: bytes, within: float) -> Answer:
        """Send, for `within` seconds at most; what became of it, and what was wrong."""
        end = time.monotonic() + within
        while True:
            kept = self._connection is not None
            try:
                status, rejected = self._exchange(body, end)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection may have ended since its last use: that says nothing about the collector.
                if kept and isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                    continue
                return Answer(Delivery.RETRY, type(error).__name__)
            except BaseException:  # thrown in from outside; the answer of this request must not be the next one's
                self.close()
                raise
            outcome = verdict(status)
            if outcome is not Delivery.TAKEN:
                return Answer(outcome, f"HTTP {status}")
            return Answer(outcome, PARTIAL if rejected else "", rejected)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _exchange(self, body: bytes, end: float) -> tuple[int, int]:
        connection = self._connection or self._connect(end)
        self._connection = connection
        connection.response_class = _with_deadline(end)
        if connection.sock is None:
            connection._create_connection = _dial  # type: ignore[attr-defined]  # there since Python 2.7.7
            connection.timeout = _left(end)
            connection.connect()
        connection.sock.settimeout(_left(end))
        connection.request("POST", self._target, body, self._headers)
        response = connection.getresponse()
        answer = response.read(ANSWER)
        if not response.isclosed() or response.will_close:
            self.close()
        return response.status, rejections(response.headers.get("Content-Type", ""), answer)

    def _connect(self, end: float) -> http.client.HTTPConnection:
        via = self._proxy
        peer, port = (via.hostname or "", via.port or 80) if via else (self.host, self.port)
        if not self._secure:
            return http.client.HTTPConnection(peer, port, timeout=_left(end))
        # Reading the system's certificates takes some 20 ms: once. gevent's patch, if it comes later, brings its own.
        if not isinstance(self._tls, ssl.SSLContext):
            self._tls = ssl.create_default_context(cafile=self._certificate or None)
        connection = http.client.HTTPSConnection(peer, port, timeout=_left(end), context=self._tls)
        if via:
            connection.set_tunnel(self.host, self.port, _login(via))
        return connection


def _dial(address: tuple[str, int], timeout: float, _source: Any = None) -> socket.socket:
    """socket.create_connection, also while Python ends: gevent looks a name up in a thread, and from 3.12 on there is
    none to be had then."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except RuntimeError:
        monkey: Any = sys.modules.get("gevent.monkey")
        if monkey is None:
            raise
        found = monkey.get_original("socket", "getaddrinfo")(*address, type=socket.SOCK_STREAM)
    problem: OSError | None = None
    for family, kind, protocol, _name, peer in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(timeout)
        try:
            sock.connect(peer)
        except OSError as error:
            problem = error
            sock.close()
        else:
            return sock
    raise problem or OSError("no address")


def _login(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _with_deadline(end: float) -> Any:
    def response(sock: Any, *args: Any, **options: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Socket(sock, end), *args, **options)  # type: ignore[arg-type]  # all it uses

    return response


class _Socket:
    def __init__(self, sock: Any, end: float) -> None:
        self._sock, self._end = sock, end

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self._sock, self._end))


class _Reads(io.RawIOBase):
    """Reads of a socket that together end at one moment."""

    def __init__(self, sock: Any, end: float) -> None:
        self._sock, self._end = sock, end
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._end))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
