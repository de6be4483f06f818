# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON and error replies in the spelling of each release, and the checks of request bodies that produce them."""

from __future__ import annotations

import json
from typing import Any

from standin import versions
from standin.server import Request, Response, html_error

SERVER_ERROR = (
    "The server encountered an internal error and was unable to complete your request. Either the server is "
    "overloaded or there is an error in the application."
)


class ApiError(Exception):
    """Ends a request with this reply."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def dump(data: Any, *, spaced: bool = False) -> str:
    if spaced or not versions.has("compact_json"):
        return json.dumps(data, ensure_ascii=True, default=str)
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=str)


def console(data: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Response:
    """A reply of a flask-restx route: newer releases escape the slash, all end with a newline."""
    text = dump(data)
    if versions.has("compact_json"):
        text = text.replace("/", "\\/")
    return Response(status, (text + "\n").encode(), headers=list(headers or []))


def plain(data: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Response:
    """A reply of /ping, /setup, /login and the like."""
    return Response(status, dump(data).encode(), headers=list(headers or []))


def spaced(data: Any, status: int = 200) -> Response:
    """A blocking chat reply, which never became compact."""
    kind = "application/json; charset=utf-8" if versions.has("compact_json") else "application/json"
    return Response(status, (dump(data, spaced=True)).encode(), kind)


def fail(status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> ApiError:
    headers = list(headers or [])
    if status == 401 and versions.has("www_authenticate"):
        headers.append(("WWW-Authenticate", 'Bearer realm="api"'))
    return ApiError(console({"code": code, "message": message, "status": status}, status, headers))


def invalid(message: str) -> ApiError:
    return fail(400, "invalid_param", message)


def invalid_field(message: str, name: str) -> ApiError:
    """The older shape, with the parameter's name instead of the status."""
    return ApiError(console({"code": "invalid_param", "message": message, "params": name}, 400))


def unknown_500() -> ApiError:
    """Whatever went wrong inside: it always looks like this."""
    data: dict[str, Any] = {"message": "Internal Server Error", "code": "unknown"}
    if versions.has("status_in_500"):
        data["status"] = 500
    return ApiError(console(data, 500))


def internal_server_error() -> ApiError:
    return fail(500, "internal_server_error", SERVER_ERROR)


def typed(status: int, kind: str, message: str, details: str = "") -> ApiError:
    """The second error shape of newer releases, on /setup, /init and /version only."""
    error: dict[str, Any] = {"type": kind, "message": message, "status": status}
    if details:
        error["details"] = details
    return ApiError(plain({"error": error}, status))


def typed_500() -> Response:
    if versions.has("html_500_setup"):
        return html_error(500, SERVER_ERROR)
    return unknown_500().response


def pydantic(model: str, name: str, text: str, kind: str, value: Any) -> ApiError:
    shown = repr(value)
    if len(shown) > 50:
        shown = shown[:25] + "..." + shown[-24:]
    number = versions.pick(versions.PYDANTIC)
    return invalid(
        f"1 validation error for {model}\n{name}\n  {text} [type={kind}, input_value={shown}, "
        f"input_type={type(value).__name__}]\n    For further information visit "
        f"https://errors.pydantic.dev/{number}/v/{kind}"
    )


def body(request: Request, model: str = "Payload", *names: str) -> dict[str, Any]:
    """The JSON object of a request that must have these keys."""
    if not request.is_json and request.body:
        raise fail(
            415,
            "unsupported_media_type",
            "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
        )
    data = request.json()
    if not isinstance(data, dict):
        raise fail(400, "bad_request", "The browser (or proxy) sent a request that this server could not understand.")
    for name in names:
        if data.get(name) is None:
            if versions.has("pydantic_payloads"):
                raise pydantic(model, name, "Field required", "missing", data)
            raise invalid_field("Missing required parameter in the JSON body", name)
    return data


def query(request: Request, model: str, name: str) -> str:
    if name not in request.query:
        if versions.has("pydantic_payloads"):
            raise pydantic(model, name, "Field required", "missing", request.query)
        raise invalid_field("Missing required parameter in the query string", name)
    return request.query[name]


def number(request: Request, name: str, default: int) -> int:
    value = request.query.get(name, "")
    return int(value) if value.isdigit() else default
