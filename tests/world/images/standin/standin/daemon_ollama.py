# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the Ollama plugin talks to a model server: real HTTP calls, and failures in the words of its client library."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

CONNECT_SECONDS = 10
READ_SECONDS = 300
Result = TypeVar("Result")


class ModelError(Exception):
    """A failure that the plugin reports under a Python exception's name."""

    def __init__(self, kind: str, message: str, described: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.described = described


class Unreachable(Exception):
    """No usable connection to the model server."""


class Slow(Exception):
    """The model server did not answer within the read timeout."""


def post(credentials: dict[str, Any], path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
    """POST to the model server; raises KeyError without base_url, Unreachable, Slow."""
    base = str(credentials["base_url"])
    url = urllib.parse.urlsplit(f"{base.rstrip('/')}/{path}")
    if url.scheme not in ("http", "https"):
        raise ModelError("InvalidSchema", f"No connection adapters were found for '{url.geturl()}'")
    kind = "HTTPS" if url.scheme == "https" else "HTTP"
    port = url.port or (443 if url.scheme == "https" else 80)
    pool = f"{kind}ConnectionPool(host='{url.hostname}', port={port})"
    connection_class = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connection_class(str(url.hostname), port, timeout=CONNECT_SECONDS)
    retries = f"{pool}: Max retries exceeded with url: {url.path} (Caused by"
    try:
        connection.connect()
    except socket.gaierror as error:
        raise Unreachable(
            f"{retries} NameResolutionError(\"{kind}Connection(host='{url.hostname}', port={port}): Failed to "
            f"resolve '{url.hostname}' ([Errno {error.errno}] {error.strerror})\"))"
        ) from error
    except OSError as error:
        raise Unreachable(
            f"{retries} NewConnectionError(\"{kind}Connection(host='{url.hostname}', port={port}): Failed to "
            f'establish a new connection: [Errno {error.errno}] {error.strerror}"))'
        ) from error
    connection.sock.settimeout(READ_SECONDS)
    headers = {"Content-Type": "application/json", "User-Agent": "python-requests/2.32.5", "Accept": "*/*"}
    if credentials.get("api_key"):
        headers["Authorization"] = f"Bearer {credentials['api_key']}"
    try:
        connection.request("POST", url.path, json.dumps(body), headers)
        return connection.getresponse()
    except TimeoutError as error:
        raise Slow(f"{pool}: Read timed out. (read timeout={READ_SECONDS})") from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise Unreachable(f"('Connection aborted.', {error!r})") from error


def chat(
    data: dict[str, Any], stream: bool, options: dict[str, Any], messages: list[dict[str, Any]]
) -> http.client.HTTPResponse:
    credentials = data["credentials"]
    body: dict[str, Any] = {"model": data["model"], "stream": stream, "options": options}
    if credentials.get("mode") == "completion":
        return post(credentials, "api/generate", {**body, "prompt": messages[-1]["content"] if messages else ""})
    return post(credentials, "api/chat", {**body, "messages": messages})


def text_of(reply: dict[str, Any]) -> str:
    return str(reply.get("message", {}).get("content", "") if "message" in reply else reply.get("response", ""))


def refusal(response: http.client.HTTPResponse) -> str:
    """What a status other than 200 says, "" for 200."""
    return (
        "" if response.status == 200 else f"status code {response.status}: {response.read().decode(errors='replace')}"
    )


def lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The reply line by line, each as soon as it is there."""
    try:
        while line := response.readline():
            if line.strip():
                yield line
    except http.client.IncompleteRead as error:
        raise ModelError("ChunkedEncodingError", "Response ended prematurely") from error
    except TimeoutError as error:
        raise ModelError("ConnectionError", str(error)) from error


def validate(data: dict[str, Any]) -> dict[str, Any]:
    """validate_model_credentials: a real request of five tokens, or one embedding."""
    prefix = "An error occurred during credentials validation: "
    try:
        if data["model_type"] == "text-embedding":
            _embed(data, ["ping"])
            return {"result": True, "credentials": data["credentials"]}
        response = chat(data, False, {"num_predict": 5}, [{"role": "user", "content": "ping"}])
        refused = refusal(response)
        if refused:
            raise ModelError("CredentialsValidateFailedError", f"{prefix}API request failed with {refused}")
        json.loads(response.read())
    except ModelError as error:
        message = error.message if error.message.startswith(prefix) else prefix + error.message
        raise ModelError("CredentialsValidateFailedError", message) from error
    except (Unreachable, Slow, KeyError, ValueError) as error:
        raise ModelError("CredentialsValidateFailedError", f"{prefix}{error}") from error
    return {"result": True, "credentials": data["credentials"]}


def embed(data: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    with_errors = _translated(_embed, data, data["texts"])
    tokens = sum(tokens_of(text) for text in data["texts"])
    usage = {
        "tokens": tokens,
        "total_tokens": tokens,
        "unit_price": "0",
        "price_unit": "0",
        "total_price": "0",
        "currency": "USD",
        "latency": time.monotonic() - started,
    }
    return {"model": data["model"], "embeddings": with_errors, "usage": usage}


def _embed(data: dict[str, Any], texts: list[str]) -> list[list[float]]:
    response = post(data["credentials"], "api/embed", {"model": data["model"], "input": texts})
    refused = refusal(response)
    if refused:
        raise ModelError("InvokeError", refused)
    return list(json.loads(response.read())["embeddings"])


def _translated(function: Callable[..., Result], *args: Any) -> Result:
    """The plugin maps what its client raised to the error classes of the model runtime."""
    try:
        return function(*args)
    except Unreachable as error:
        raise ModelError("InvokeServerUnavailableError", f"[models] Server Unavailable Error, {error}", True) from error
    except Slow as error:
        raise ModelError("InvokeConnectionError", f"[models] Connection Error, {error}", True) from error
    except (KeyError, ValueError) as error:
        raise ModelError("InvokeError", f"[models] Error: {error}", True) from error
    except ModelError as error:
        raise ModelError("InvokeError", f"[models] Error: {error.message}", True) from error


def ask(data: dict[str, Any], stream: bool, messages: list[dict[str, Any]]) -> http.client.HTTPResponse:
    """The request of an llm/invoke, checked for a good status."""
    response = _translated(chat, data, stream, data.get("model_parameters") or {}, messages)
    refused = refusal(response)
    if refused:
        raise ModelError("InvokeError", f"[models] Error: API request failed with {refused}", True)
    return response


def whole(response: http.client.HTTPResponse) -> dict[str, Any]:
    reply = _translated(json.loads, response.read())
    return dict(reply)


def tokens_of(text: str) -> int:
    """A rough count; the plugin asks a vocabulary that this stand-in does not have."""
    return len(text.split()) or 1
