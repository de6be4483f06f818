# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the plugin daemon, as each release sends them, and what becomes of its errors."""

from __future__ import annotations

import http.client
import json
import secrets
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from standin import versions
from standin.api import replies, settings

MDN = "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/"


class DaemonError(Exception):
    """Anything that went wrong between the API and the daemon."""


class DaemonDown(DaemonError):
    def __init__(self, path: str) -> None:
        super().__init__(f"Failed to request plugin daemon, url: {path}")


class DaemonHttpError(DaemonError):
    """The daemon (or what answers in its place) said an HTTP error to a management request."""

    def __init__(self, status: int, url: str) -> None:
        kind = "Client" if status < 500 else "Server"
        name = HTTPStatus(status).phrase
        super().__init__(f"{kind} error '{status} {name}' for url '{url}'\nFor more information check: {MDN}{status}")


class DaemonRefusal(DaemonError):
    """A reply with a code other than 0: {"message", "error_type", "args"} packed as text into `message`."""

    def __init__(self, code: int, raw: str) -> None:
        super().__init__(raw)
        self.code, self.raw = code, raw
        try:
            inner = json.loads(raw)
        except ValueError:
            inner = {}
        self.error_type = str(inner.get("error_type") or "")
        self.text = str(inner.get("message") or raw)

    def invoke_error(self) -> dict[str, Any]:
        """The exception inside the plugin, for a PluginInvokeError."""
        try:
            return dict(json.loads(self.text)) if self.error_type == "PluginInvokeError" else {}
        except (ValueError, TypeError):
            return {}


class DispatchBroken(DaemonError):
    """A dispatch that could not be sent or was cut off."""

    def __init__(self) -> None:
        super().__init__("Request to Plugin Daemon Service failed-500")


class DispatchGarbage(DaemonError):
    """A dispatch answered by something that is no daemon: its first line is the text."""


def _base() -> urllib.parse.SplitResult:
    return urllib.parse.urlsplit(settings.text("PLUGIN_DAEMON_URL", "http://localhost:5002"))


def _connect() -> http.client.HTTPConnection:
    base = _base()
    kind = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
    return kind(base.hostname or "localhost", base.port, timeout=float(settings.text("PLUGIN_DAEMON_TIMEOUT") or 600))


def _headers(**more: str) -> dict[str, str]:
    return {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": versions.pick(versions.USER_AGENT),
        "X-Api-Key": settings.text("PLUGIN_DAEMON_KEY", "plugin-api-key"),
        **more,
    }


def _target(path: str, query: dict[str, Any] | None) -> str:
    text = f"{_base().path.rstrip('/')}/{path}"
    return text + ("?" + urllib.parse.urlencode(query) if query else "")


def management(method: str, tenant_id: object, path: str, **content: Any) -> Any:
    """The `data` of a request below plugin/<tenant>/management/."""
    return call(method, tenant_id, f"management/{path}", **content)


def call(
    method: str,
    tenant_id: object,
    path: str,
    *,
    query: dict[str, Any] | None = None,
    body: Any = None,
    raw: tuple[bytes, str] | None = None,
) -> Any:
    """The `data` of a request below plugin/<tenant>/."""
    target = _target(f"plugin/{tenant_id}/{path}", query)
    data, headers = None, _headers()
    if raw is not None:
        data, headers = raw[0], _headers(**{"Content-Type": raw[1]})
    elif body is not None:
        data, headers = json.dumps(body).encode(), _headers(**{"Content-Type": "application/json"})
    connection = _connect()
    try:
        connection.request(method, target, data, headers)
        reply = connection.getresponse()
        content = reply.read()
    except (OSError, http.client.HTTPException):
        raise DaemonDown(f"plugin/{tenant_id}/{path}") from None
    finally:
        connection.close()
    if reply.status >= 400:
        raise DaemonHttpError(reply.status, f"{_base().scheme}://{_base().netloc}{target}")
    return _unpack(content)


def _unpack(content: bytes) -> Any:
    reply = json.loads(content)
    if reply.get("code"):
        raise DaemonRefusal(int(reply["code"]), str(reply.get("message")))
    return reply.get("data")


def upload(tenant_id: object, package: bytes, verify: bool = False) -> Any:
    boundary = secrets.token_hex(16)
    wanted = str(verify).lower()
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="verify_signature"\r\n\r\n{wanted}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="dify_pkg"; filename="dify_pkg"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    content = parts + package + f"\r\n--{boundary}--\r\n".encode()
    return management(
        "POST", tenant_id, "install/upload/package", raw=(content, f"multipart/form-data; boundary={boundary}")
    )


def dispatch(tenant_id: object, path: str, plugin_id: str, data: dict[str, Any]) -> Iterator[Any]:
    """The events of a dispatch that calls no model: the `data` of each."""
    body: dict[str, Any] = {"data": data}
    if not versions.has("no_user_id_in_dispatch"):
        body = {"user_id": "unknown", "data": data}
    headers = {"X-Plugin-ID": plugin_id, "Content-Type": "application/json"}
    for line in lines("POST", f"plugin/{tenant_id}/dispatch/{path}", None, headers, body):
        yield event(line)


def lines(
    method: str,
    path: str,
    query: dict[str, Any] | None,
    headers: dict[str, str] | None,
    body: bytes | dict[str, Any] | None,
) -> Iterator[str]:
    """What the daemon streams, line by line. Leaving the generator closes the connection."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = _connect()
    try:
        connection.request(method, _target(path, query), data, _headers(**(headers or {})))
        reply = connection.getresponse()
        for line in reply:
            text = line.decode(errors="replace").strip()
            if text.startswith("data:"):
                text = text[5:].strip()
            if text:
                yield text
    except (OSError, http.client.HTTPException):
        raise DispatchBroken from None
    finally:
        connection.close()


def event(text: str) -> Any:
    """The `data` of one line."""
    try:
        reply = json.loads(text)
    except ValueError:
        raise DispatchGarbage(text) from None
    if reply.get("code"):
        raise DaemonRefusal(int(reply["code"]), str(reply.get("message")))
    return reply.get("data")


def once(tenant_id: object, path: str, plugin_id: str, data: dict[str, Any]) -> Any:
    """The first event of a dispatch that has just one."""
    for found in dispatch(tenant_id, path, plugin_id, data):
        return found
    return None


def request_id() -> str:
    return secrets.token_hex(5)


def for_plugin_route(error: DaemonError) -> replies.ApiError:
    """The reply of a plugin route: releases with `plugin_error` show more of what the daemon said."""
    if isinstance(error, DaemonDown):
        return replies.invalid(str(error))
    bad_request = isinstance(error, DaemonRefusal) and error.error_type == "PluginDaemonBadRequestError"
    if versions.has("plugin_error") and (bad_request or isinstance(error, DaemonHttpError)):
        text = error.text if isinstance(error, DaemonRefusal) else str(error)
        return replies.ApiError(replies.console({"code": "plugin_error", "message": text}, 400))
    if bad_request and isinstance(error, DaemonRefusal):
        return replies.invalid(f"req_id: {request_id()} PluginDaemonBadRequestError: {error.text}")
    return replies.unknown_500()


def for_model_route(error: DaemonError) -> replies.ApiError:
    """The reply of a console route that needed the daemon on its way."""
    if isinstance(error, DaemonDown):
        return replies.invalid(str(error))
    if isinstance(error, DaemonRefusal) and error.code in (-404, -401):
        return replies.invalid(f"plugin daemon: {error.raw}, code: {error.code}")
    return replies.unknown_500()


def for_service_route(error: DaemonError) -> replies.ApiError:
    """The reply of /v1 when the daemon failed before the model was called."""
    if isinstance(error, DaemonDown):
        return replies.invalid(str(error))
    return replies.internal_server_error()
