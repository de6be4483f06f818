# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""0.15.3 has no plugins: it asks Ollama itself. Error texts are those of the recorded client."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

TIMEOUT = 300.0
# Family of an error -> its class.
ERRORS = {
    "Error": "InvokeError",
    "Server Unavailable Error": "InvokeServerUnavailableError",
    "Connection Error": "InvokeConnectionError",
}


class ModelServerError(Exception):
    """`family` is the error class that a reply names: "Error", "Server Unavailable Error", "Connection Error"."""

    def __init__(self, text: str, family: str = "Error") -> None:
        super().__init__(text)
        self.text, self.family = text, family


def _post(
    credentials: dict[str, Any], path: str, body: dict[str, Any]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    url = urllib.parse.urlsplit(credentials["base_url"].rstrip("/") + path)
    if not url.scheme or not url.hostname:
        raise ModelServerError(f"No connection adapters were found for '{credentials['base_url']}{path}'")
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=TIMEOUT)
    pool = f"HTTPConnectionPool(host='{url.hostname}', port={url.port or 80})"
    headers = {"Content-Type": "application/json", "User-Agent": "python-requests/2.31.0", "Accept": "*/*"}
    try:
        connection.request("POST", url.path, json.dumps(body).encode(), headers)
        reply = connection.getresponse()
    except TimeoutError:
        raise ModelServerError(f"{pool}: Read timed out. (read timeout={TIMEOUT:.0f})", "Connection Error") from None
    except ConnectionResetError as error:
        raise ModelServerError(f"('Connection aborted.', {error!r})", "Server Unavailable Error") from None
    except OSError as error:
        number = error.errno if error.errno is not None else -2
        raise ModelServerError(
            f"{pool}: Max retries exceeded with url: {url.path} (Caused by NewConnectionError("
            f"'<urllib3.connection.HTTPConnection object at 0x7f0000000000>: Failed to establish a new connection: "
            f"[Errno {number}] {error.strerror}'))",
            "Server Unavailable Error",
        ) from None
    if reply.status != 200:
        text = reply.read().decode(errors="replace")
        connection.close()
        raise ModelServerError(f"API request failed with status code {reply.status}: {text}")
    return connection, reply


def validate(model_type: str, model: str, credentials: dict[str, Any]) -> None:
    if model_type == "text-embedding":
        connection, reply = _post(credentials, "/api/embed", {"model": model, "input": ["ping"]})
    else:
        connection, reply = _post(
            credentials,
            "/api/chat",
            {
                "model": model,
                "stream": False,
                "options": {"num_predict": 5},
                "messages": [{"role": "user", "content": "ping"}],
            },
        )
    reply.read()
    connection.close()


def embed(model: str, credentials: dict[str, Any], texts: list[str]) -> list[list[float]]:
    connection, reply = _post(credentials, "/api/embed", {"model": model, "input": texts})
    try:
        return list(json.loads(reply.read())["embeddings"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise ModelServerError(str(error)) from None
    finally:
        connection.close()


def chat(
    model: str, credentials: dict[str, Any], messages: list[dict[str, str]], options: dict[str, Any], *, stream: bool
) -> Iterator[tuple[str, dict[str, int] | None]]:
    """Pieces of text, each with None, and at the end the counts. The request is sent at once."""
    body = {"model": model, "stream": stream, "options": options, "messages": messages}
    return _pieces(*_post(credentials, "/api/chat", body))


def _pieces(
    connection: http.client.HTTPConnection, reply: http.client.HTTPResponse
) -> Iterator[tuple[str, dict[str, int] | None]]:
    try:
        for raw in reply:
            line = raw.strip()
            if not line:
                continue
            data = json.loads(line)
            if "done" not in data:
                raise ModelServerError("'done'")  # the real text of the error is lost, as recorded
            text = data.get("message", {}).get("content", "")
            if not data["done"]:
                yield text, None
                continue
            yield (
                text,
                {"prompt_tokens": data.get("prompt_eval_count", 0), "completion_tokens": data.get("eval_count", 0)},
            )
    except (OSError, http.client.HTTPException) as error:
        raise ModelServerError(f"Response ended prematurely ({error})", "Connection Error") from None
    finally:
        connection.close()
