# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Dify's plugin daemon over HTTP: its routes, its envelope, and what each of its errors means.

Only routes that are the same in every daemon from 0.0.1 on are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, Response, sse

# A workspace that cannot exist. The daemon lists nothing for it and still checks the key.
NO_TENANT = "00000000-0000-0000-0000-000000000000"
USER = "llmops-health-check"
PAGE_SIZE = 256


class DaemonError(Exception):
    """The daemon answered, and the answer is an error. `cause` says what it means."""

    def __init__(self, cause: str, message: str = "", status: int = 0, plugin_error: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.status = status
        # Class of the exception that was raised inside the plugin, "" for the daemon's own errors.
        self.plugin_error = plugin_error


class Daemon:
    def __init__(self, http: Http, url: str, key: str = "", timeout: float = 5.0) -> None:
        self.http = http
        self.url = url.rstrip("/")
        self.key = key
        self.timeout = timeout

    def health(self) -> dict[str, Any]:
        answer = self.http.request("GET", self.url + "/health/check", self.timeout)
        data = answer.json()
        if answer.status != 200 or not isinstance(data, dict) or "status" not in data:
            raise DaemonError("not_a_daemon", f"HTTP {answer.status}", answer.status)
        return data

    def installed(self, tenant: str) -> list[dict[str, Any]]:
        return self._all(tenant, "list")

    def models(self, tenant: str) -> list[dict[str, Any]]:
        return self._all(tenant, "models")

    def tasks(self, tenant: str) -> tuple[list[dict[str, Any]], str]:
        """Install tasks, and the daemon's own time, by which their age is to be judged."""
        answer = self._get(tenant, "install/tasks", 1)
        return _items(decode(answer.status, answer.text)), answer.headers.get("Date", "")

    def check_key(self) -> None:
        """Raises `unauthorized` for a wrong key. Troubles behind the key check are none of its business."""
        answer = self._get(NO_TENANT, "list", 1, size=1)
        try:
            decode(answer.status, answer.text)
        except DaemonError as exc:
            if exc.cause in ("unauthorized", "not_a_daemon", "empty"):
                raise

    def dispatch(
        self, tenant: str, plugin: str, route: str, data: dict[str, Any], timeout: float
    ) -> Iterator[dict[str, Any]]:
        """Ask a plugin; yields the data of each event."""
        url = f"{self.url}/plugin/{quote(tenant)}/dispatch/{route}"
        headers = {"X-Api-Key": self.key, "X-Plugin-ID": plugin}
        with self.http.stream("POST", url, timeout, headers, {"user_id": USER, "data": data}) as stream:
            if stream.status != 200:
                decode(stream.status, "\n".join(stream.lines()))
                raise DaemonError("other", f"HTTP {stream.status}", stream.status)
            for _event, text in sse(stream.lines()):
                if text:
                    yield decode(200, text)

    def _get(self, tenant: str, route: str, page: int, size: int = PAGE_SIZE) -> Response:
        query = urlencode({"page": page, "page_size": size})
        url = f"{self.url}/plugin/{quote(tenant)}/management/{route}?{query}"
        return self.http.request("GET", url, self.timeout, {"X-Api-Key": self.key})

    def _all(self, tenant: str, route: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in range(1, 100):
            answer = self._get(tenant, route, page)
            items = _items(decode(answer.status, answer.text))
            found += items
            if len(items) < PAGE_SIZE:
                break
        return found


def _items(data: Any) -> list[dict[str, Any]]:
    """The entries of a list: a bare array in 0.0.x and on most routes, {"list": [...]} else."""
    if isinstance(data, dict):
        data = data.get("list")
    return [one for one in data or [] if isinstance(one, dict)]


def decode(status: int, text: str) -> Any:
    """The data of an answer, or DaemonError. Management answers errors with HTTP 200, so only the code counts."""
    text = text.strip()
    if text.startswith("data:"):
        text = text[5:].strip()
    if not text:
        raise DaemonError("empty", f"HTTP {status} without a body", status)
    try:
        envelope = json.loads(text)
    except ValueError:
        envelope = None
    # Unknown routes are answered with a code that is a string, and by old daemons with plain text.
    if not isinstance(envelope, dict) or not isinstance(envelope.get("code"), int):
        raise DaemonError("not_a_daemon", f"HTTP {status}", status)
    if envelope["code"] == 0 and status < 400:
        return envelope.get("data")
    message, kind = _unwrap(envelope.get("message"))
    plugin_error = ""
    if kind == "PluginInvokeError":
        message, plugin_error = _unwrap(message)
    raise DaemonError(cause_of(envelope["code"], message, kind, status), message, status, plugin_error)


def _unwrap(message: Any) -> tuple[str, str]:
    """Text and error type out of a message that is JSON inside a JSON string."""
    try:
        inner = json.loads(message)
    except (TypeError, ValueError):
        return str(message or ""), ""
    if not isinstance(inner, dict):
        return str(message), ""
    return str(inner.get("message") or ""), str(inner.get("error_type") or "")


def cause_of(code: int, message: str, kind: str, status: int) -> str:
    if code == -401 or status == 401:
        return "unauthorized"
    if kind == "PluginInvokeError":
        return "plugin_raised"
    if code == -404 and "plugin not found" in message:
        return "not_installed"
    return cause_of_text(message) or ("refused_request" if status == 400 else "other")


# First match wins. PostgreSQL before Redis: both name an address, only PostgreSQL's driver a user and a database.
_TEXTS = (
    ("no_node", r"no available node"),
    ("no_instance", r"no proper instance"),
    ("killed", r"killed by timeout"),
    ("redirect", r"redirect request failed|failed to fetch plugin available nodes|too many open files"),
    ("no_tables", r"SQLSTATE 42P01"),
    ("bad_tenant", r"SQLSTATE 22P02"),
    ("database", r"SQLSTATE|failed to connect to `|user=\S+ database="),
    ("redis", r"NOAUTH|WRONGPASS|redis|dial tcp|i/o timeout|\bEOF\b|broken pipe"),
)


def cause_of_text(text: str) -> str:
    """What a daemon's error text means, "" if it is not a known one. Dify passes these texts on in its own errors."""
    return next((cause for cause, pattern in _TEXTS if re.search(pattern, text)), "")
