# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Questions over HTTP with nothing but Python itself, for a look at a host before anything is installed on it.

The same words for trouble as _http has, and the same rules: no redirects, and only a proxy that was given by name.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError, Response, classify

__all__ = ["PlainHttp"]

_PIECE = 65536


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *unused: Any, **also_unused: Any) -> None:
        """No other address than the one that was asked."""


class PlainHttp:
    def __init__(self, proxy: str = "", no_proxy: str = "") -> None:
        self.proxy = proxy
        self.no_proxy = no_proxy

    def request(
        self, method: str, url: str, timeout: float, headers: Mapping[str, str] | None = None, limit: int = 4 * 1024**2
    ) -> Response:
        """The answer, with no more of its body than `limit`; a server that knows no ranges would send a whole model.

        Raises:
            HttpError: There is none in time.
        """
        proxy = self._proxy_for(url)
        opener = urllib.request.build_opener(
            _Stay,
            urllib.request.ProxyHandler({"https": proxy} if proxy else {}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        )
        sent = {"User-Agent": "llmops.stack", "Accept-Encoding": "identity", **(headers or {})}
        deadline = time.monotonic() + timeout
        late = "timeout_read"
        try:
            asked = urllib.request.Request(url, headers=sent, method=method)  # noqa: S310 - made from a host's name
            with contextlib.closing(_open(opener, asked, timeout)) as answer:
                late = "timeout_total"
                return Response(answer.status, answer.headers, _read(answer, deadline, limit))
        except (socket.timeout, TimeoutError) as exc:
            raise HttpError(late, url, timeout, proxy) from exc
        except (OSError, ValueError, http.client.HTTPException) as exc:
            in_vain = isinstance(getattr(exc, "reason", None), (socket.timeout, TimeoutError))
            raise HttpError("timeout_connect" if in_vain else classify(exc), url, timeout, proxy) from exc

    def _proxy_for(self, url: str) -> str:
        host = urlsplit(url).hostname or ""
        if not self.proxy or not url.startswith("https://"):
            return ""
        inside = any(_within(host, one.strip()) for one in self.no_proxy.split(","))
        named: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it
        return "" if inside or named(host, {"no": self.no_proxy}) else self.proxy


def _open(opener: urllib.request.OpenerDirector, asked: urllib.request.Request, timeout: float) -> Any:
    try:
        return opener.open(asked, timeout=timeout)
    except urllib.error.HTTPError as answer:
        return answer


def _read(answer: Any, deadline: float, limit: int) -> bytes:
    """As much as is wanted and comes in time, taken as it arrives."""
    body = b""
    while len(body) < limit:
        piece = answer.read1(min(_PIECE, limit - len(body)))
        if not piece:
            break
        body += piece
        if time.monotonic() > deadline:
            raise TimeoutError
    return body


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
