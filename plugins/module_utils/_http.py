# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""A small HTTP client for checks: whatever the peer does, the caller gets an answer in time, and in words.

A read timeout alone bounds only the gap between two packets. Every exchange therefore runs in its own thread,
and the caller waits for it until a total deadline and no longer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import queue
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

try:
    import requests
except ImportError:
    HAS_REQUESTS = False
    REQUESTS_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    HAS_REQUESTS = True
    REQUESTS_IMPORT_ERROR = None

# Longest body that is read. A list of 256 plugins with their declarations has some 5 MB.
MAX_BYTES = 32 * 1024 * 1024

_WORDS = {
    "dns": "the name in {0} cannot be resolved",
    "refused": "{0} refuses connections",
    "unreachable": "there is no route to {0}",
    "timeout_connect": "{0} does not accept connections within {1:g} s",
    "timeout_read": "{0} accepts connections but does not answer within {1:g} s",
    "timeout_total": "{0} began to answer but did not finish within {1:g} s",
    "tls": "the TLS handshake with {0} failed",
    "reset": "{0} closed the connection before its answer was complete",
    "too_large": "{0} sends more than any answer should have",
    "protocol": "{0} does not speak HTTP",
    "invalid": "{0} is not a valid URL",
    "socks": "{0} cannot be asked without the Python library PySocks",
}


class HttpError(Exception):
    """No usable answer. `kind` is a key of the table above, the text is a sentence without its full stop."""

    def __init__(self, kind: str, url: str, seconds: float = 0.0, proxy: str = "") -> None:
        self.kind = kind
        place = f"{origin(url)} (through the proxy {origin(proxy)})" if proxy else origin(url)
        super().__init__(_WORDS[kind].format(place, seconds))


class Response:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.text = body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The decoded body, None where it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Stream:
    """An answer that is read while it arrives."""

    def __init__(self, exchange: _Exchange, status: int, headers: Mapping[str, str]) -> None:
        self._exchange = exchange
        self.status = status
        self.headers = headers

    def lines(self) -> Iterator[str]:
        rest = b""
        for piece in self._exchange.pieces():
            rest += piece
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").rstrip("\r")
        if rest:
            yield rest.decode("utf-8", "replace")

    def close(self) -> None:
        self._exchange.stop()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def proxies_for(url: str, proxy: str, no_proxy: str = "") -> dict[str, str]:
    """The proxy for a URL as requests takes it, by the rules that Ollama has for HTTPS_PROXY and NO_PROXY."""
    if not proxy or not url.startswith("https://"):
        return {}
    return {} if requests.utils.should_bypass_proxies(url, no_proxy) else {"https": proxy}


class Http:
    """Requests without redirects, and without a proxy that was not given by name: a check wants to know about exactly
    the address that it asks."""

    def __init__(self, verify: bool | str = True, connect: float = 3.0, proxy: str = "", no_proxy: str = "") -> None:
        self.verify = verify
        self.connect = connect
        self.proxy = proxy
        self.no_proxy = no_proxy

    def request(
        self,
        method: str,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Response:
        exchange = _Exchange(self, method, url, timeout, headers, body)
        try:
            status, received = exchange.head()
            return Response(status, received, b"".join(exchange.pieces()))
        finally:
            exchange.stop()

    def stream(
        self,
        method: str,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Stream:
        """`timeout` bounds the whole exchange, not the gap between two events."""
        exchange = _Exchange(self, method, url, timeout, headers, body)
        status, received = exchange.head()
        return Stream(exchange, status, received)


class _Exchange:
    """One request in a thread of its own; what arrives comes through a queue."""

    def __init__(
        self, http: Http, method: str, url: str, timeout: float, headers: Mapping[str, str] | None, body: Any
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.started = False
        self.queue: queue.Queue[Any] = queue.Queue()
        self.stopped = threading.Event()
        self.raw: Any = None
        self.connect = min(http.connect, timeout)
        proxies = proxies_for(url, http.proxy, http.no_proxy)
        self.proxy = proxies.get("https", "")
        sent = {"User-Agent": "llmops.stack", "Accept-Encoding": "identity"}
        sent.update(headers or {})
        arguments: dict[str, Any] = {
            "headers": sent,
            "stream": True,
            "allow_redirects": False,
            "verify": http.verify,
            "proxies": proxies,
            "timeout": (self.connect, timeout),
        }
        # No Content-Type without a body: the plugin daemon ignores the query of a GET that has one.
        if body is not None:
            arguments["data" if isinstance(body, bytes) else "json"] = body
        threading.Thread(target=self._run, args=(method, arguments), daemon=True).start()

    def _run(self, method: str, arguments: dict[str, Any]) -> None:
        try:
            with requests.Session() as session:
                session.trust_env = False
                with session.request(method, self.url, **arguments) as response:
                    self.raw = response.raw
                    self.queue.put((response.status_code, response.headers))
                    size = 0
                    for piece in response.iter_content(chunk_size=None):
                        if self.stopped.is_set():
                            return
                        size += len(piece)
                        if size > MAX_BYTES:
                            raise HttpError("too_large", self.url)
                        self.queue.put(piece)
            self.queue.put(None)
        except Exception as exc:
            self.queue.put(exc)

    def _next(self) -> Any:
        try:
            item = self.queue.get(timeout=max(0.0, self.deadline - time.monotonic()))
        except queue.Empty:
            self.stop()
            raise self._late() from None
        if not isinstance(item, Exception):
            return item
        if isinstance(item, HttpError):
            raise item
        kind = classify(item)
        if kind == "timeout_connect":
            raise HttpError(kind, self.url, self.connect, self.proxy) from item
        late = kind == "timeout_read"
        raise (self._late() if late else HttpError(kind, self.url, proxy=self.proxy)) from item

    def _late(self) -> HttpError:
        return HttpError("timeout_total" if self.started else "timeout_read", self.url, self.timeout, self.proxy)

    def head(self) -> tuple[int, Mapping[str, str]]:
        status, headers = self._next()
        self.started = True
        return status, headers

    def pieces(self) -> Iterator[bytes]:
        while True:
            piece = self._next()
            if piece is None:
                return
            yield piece

    def stop(self) -> None:
        """Close the connection, also where the peer is silent: it shall not go on with what nobody waits for."""
        self.stopped.set()
        socket_in_use = getattr(getattr(self.raw, "connection", None), "sock", None)
        if socket_in_use is not None:
            with contextlib.suppress(OSError):
                socket_in_use.shutdown(socket.SHUT_RDWR)


def origin(url: str) -> str:
    """Scheme, host and port of a URL, without a user and password in it."""
    found = re.match(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^/?#]*@)?([^/?#]*)", url)
    return (found.group(1) + found.group(2)) if found else url


def sse(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Events of a server-sent stream as (event, data).

    A line of plain JSON counts as data: errors before a stream come without the prefix.
    """
    event, data = "", []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].strip())
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("{"):
            data.append(line)
        elif not line.strip():
            if event or data:
                yield event, "\n".join(data)
            event, data = "", []
    if event or data:
        yield event, "\n".join(data)


def classify(exc: BaseException) -> str:
    """The kind of a failure. requests wraps urllib3 wraps the socket, so the whole chain is looked at."""
    chain = list(_chain(exc))
    names = {type(one).__name__ for one in chain}
    numbers = {one.errno for one in chain if isinstance(one, OSError)}
    if "InvalidSchema" in names and "SOCKS" in str(exc):
        return "socks"
    if names & {"InvalidURL", "MissingSchema", "InvalidSchema", "LocationParseError"}:
        return "invalid"
    if any(isinstance(one, socket.gaierror) for one in chain):
        return "dns"
    if "SSLError" in names or "SSLCertVerificationError" in names:
        return "tls"
    if "ConnectTimeout" in names or "ConnectTimeoutError" in names:
        return "timeout_connect"
    if "ReadTimeout" in names or "ReadTimeoutError" in names:
        return "timeout_read"
    if errno.ECONNREFUSED in numbers:
        return "refused"
    if numbers & {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return "unreachable"
    if "BadStatusLine" in names or "UnknownProtocol" in names:
        return "protocol"
    return "reset"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    waiting, seen = [exc], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        linked = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting.extend(other for other in linked if isinstance(other, BaseException))
