# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Ollama's HTTP API. A status of 200 is not taken for success: streams carry errors in their lines."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, Response, Stream, origin

SECONDS = 10.0


class ApiError(Exception):
    """The server did not do it. `status` is 0 where no answer came, `text` is what it said, the message a sentence."""

    def __init__(self, message: str, status: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class Silence(ApiError):
    """A stream broke off, or brings nothing any more."""


class Ollama:
    def __init__(self, url: str, http: Http | None = None, timeout: float = SECONDS) -> None:
        self.url = url.rstrip("/")
        self.http = http or Http()
        self.timeout = timeout

    def version(self) -> str:
        return str(self._get("/api/version").get("version") or "")

    def tags(self) -> list[dict[str, Any]]:
        """What the server lists. No proof of anything: a model whose weights are lost is listed with its full size."""
        return _dicts(self._get("/api/tags").get("models"))

    def ps(self) -> list[dict[str, Any]]:
        """The models in memory; size_vram / size is the share on a GPU."""
        return _dicts(self._get("/api/ps").get("models"))

    def show(self, name: str) -> dict[str, Any] | None:
        """Details of a model, None where the server does not have it (or has lost its weights)."""
        return self._post("/api/show", {"model": name}, missing=True)

    def copy(self, source: str, destination: str) -> None:
        self._post("/api/copy", {"source": source, "destination": destination})

    def delete(self, name: str) -> bool:
        """Whether there was something to delete."""
        answer = self._request("DELETE", "/api/delete", {"model": name})
        if answer.status == 404:
            return False
        self._check("/api/delete", answer)
        return True

    def generate(self, name: str, prompt: str, tokens: int, timeout: float) -> dict[str, Any]:
        """One answer of at most so many tokens. keep_alive is left to the server and to whoever loaded the model."""
        body = {"model": name, "prompt": prompt, "stream": False, "options": {"num_predict": tokens}}
        return self._post("/api/generate", body, timeout) or {}

    def embed(self, name: str, text: str, timeout: float) -> dict[str, Any]:
        return self._post("/api/embed", {"model": name, "input": text}, timeout) or {}

    def unload(self, name: str) -> None:
        """Have the model leave the memory once nobody waits for an answer of it."""
        self._post("/api/generate", {"model": name, "keep_alive": 0})

    def pull(self, name: str, insecure: bool, timeout: float) -> Generator[dict[str, Any], None, None]:
        """The objects of a pull while they arrive, and an empty one for each second of silence: the caller judges it.

        Raises:
            ApiError: The server refuses, or an error came as a line of the stream.
            Silence: The stream breaks off, or ends without having said success.
        """
        body = {"model": name, "insecure": insecure, "stream": True}
        last = ""
        with _Lines(self.http, f"{self.url}/api/pull", body, timeout) as lines:
            for line in lines:
                if not line:
                    yield {}
                    continue
                if lines.status != 200:
                    raise self._refusal("/api/pull", lines.status, _error_of(line) or line)
                event = _decoded(line)
                if "error" in event:
                    raise self._refusal("/api/pull", 200, str(event["error"]))
                last = str(event.get("status", last))
                yield event
            if lines.status != 200:
                raise self._refusal("/api/pull", lines.status, "")
        if last != "success":
            raise Silence(f"{origin(self.url)} ended a pull without a word of success (the last one: {last!r}).")

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._request("GET", path)
        self._check(path, answer)
        return self._json(path, answer)

    def _post(
        self, path: str, body: dict[str, Any], timeout: float = 0.0, missing: bool = False
    ) -> dict[str, Any] | None:
        answer = self._request("POST", path, body, timeout)
        if missing and answer.status == 404:
            return None
        self._check(path, answer)
        return self._json(path, answer) if answer.text.strip() else {}

    def _request(self, method: str, path: str, body: Any = None, timeout: float = 0.0) -> Response:
        try:
            return self.http.request(method, self.url + path, timeout or self.timeout, body=body)
        except HttpError as exc:
            raise ApiError(f"{exc}.") from exc

    def _check(self, path: str, answer: Response) -> None:
        if answer.status != 200:
            raise self._refusal(path, answer.status, _error_of(answer.text) or answer.text)

    def _json(self, path: str, answer: Response) -> dict[str, Any]:
        data = answer.json()
        if not isinstance(data, dict):
            raise ApiError(f"{origin(self.url)}{path} answers something else than Ollama does.", answer.status)
        if data.get("error"):
            raise self._refusal(path, answer.status, str(data["error"]))
        return data

    def _refusal(self, path: str, status: int, text: str) -> ApiError:
        short = " ".join(text.split())[:300] or "nothing else"
        how = "says" if status == 200 else f"answers HTTP {status},"
        return ApiError(f"{origin(self.url)}{path} {how} {short!r}.", status, text)


class _Lines:
    """The lines of an answer, read in a thread; an empty one stands for a second in which none came."""

    def __init__(self, http: Http, url: str, body: dict[str, Any], timeout: float) -> None:
        self.url = url
        self.status = 0
        self._stream: Stream | None = None
        self._arrived: queue.Queue[Any] = queue.Queue()
        self._over = threading.Event()
        threading.Thread(target=self._read, args=(http, body, timeout), daemon=True).start()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        # At once, not at the next line: a server that still holds a pull whose client seems to be there lets the next
        # one join it, and some versions crash when that one leaves.
        if self._stream:
            self._stream.close()

    def _read(self, http: Http, body: dict[str, Any], timeout: float) -> None:
        try:
            with http.stream("POST", self.url, timeout, body=body) as stream:
                self._stream, self.status = stream, stream.status
                for line in stream.lines():
                    if self._over.is_set():
                        return
                    self._arrived.put(line)
            self._arrived.put(None)
        except HttpError as exc:
            self._arrived.put(exc)

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                item = self._arrived.get(timeout=1.0)
            except queue.Empty:
                yield ""
                continue
            if item is None:
                return
            if isinstance(item, HttpError):
                raise (Silence if self.status else ApiError)(f"{item}.") from item
            if item.strip():
                yield item


def _decoded(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {"error": f"not the line of an Ollama stream: {line[:100]}"}


def _error_of(text: str) -> str:
    """The words of an error in Ollama's own or in OpenAI's form."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
