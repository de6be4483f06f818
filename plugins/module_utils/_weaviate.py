# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Weaviate's REST interface, as far as its classes are copied from one server to another. 1.19.0 and 1.27.0 speak it
alike; what differs (one vector of an object, or several with names) is the caller's business.

Every request is a connection that is kept. A server that has just started says it is ready before its schema is loaded
(1.27.0 for some tenths of a second), so C(await_ready) also asks for that.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

__all__ = ["PAGE", "Weaviate", "WeaviateError"]

PAGE = 200  # objects at a time; of 3072 dimensions they have some 8 MB
_LIST_PAGE = 2000  # without vectors


class WeaviateError(Exception):
    """No usable answer. One sentence without its full stop; it holds no key."""


class Weaviate:
    def __init__(self, address: str, key: str = "", port: int = 8080, timeout: float = 60) -> None:
        self.address, self.port = address, port
        self._key = key
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Weaviate:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # -- the server

    def await_ready(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                self._ask("GET", "/v1/.well-known/ready")
                if not self.classes() or self._loaded():
                    return
                said = "its schema is not loaded"
            except WeaviateError as exc:
                said = str(exc)
            if time.monotonic() >= until:
                raise WeaviateError(f"Weaviate is not ready within {seconds:g} s ({said})")
            time.sleep(0.2)

    def _loaded(self) -> bool:
        answer = self._ask("POST", "/v1/graphql", {"query": "{__schema{queryType{name}}}"})
        return bool((answer or {}).get("data"))

    def version(self) -> str:
        return str((self._ask("GET", "/v1/meta") or {}).get("version", ""))

    # -- classes

    def classes(self) -> list[dict[str, Any]]:
        found = (self._ask("GET", "/v1/schema") or {}).get("classes") or []
        return sorted(found, key=lambda one: str(one["class"]))

    def create(self, described: dict[str, Any]) -> None:
        self._ask("POST", "/v1/schema", described)

    def add_property(self, name: str, described: dict[str, Any]) -> None:
        self._ask("POST", f"/v1/schema/{quote(name)}/properties", described)

    def drop(self, name: str) -> None:
        self._ask("DELETE", f"/v1/schema/{quote(name)}")

    def count(self, name: str) -> int:
        data = self._query("Aggregate", name, "meta{count}")
        return int(data[0]["meta"]["count"]) if data else 0

    # -- objects

    def pages(self, name: str, size: int = PAGE) -> Iterator[list[dict[str, Any]]]:
        """All objects with their vectors, in the order of their ids."""
        after = ""
        while True:
            asked = urlencode({"class": name, "limit": size, "after": after, "include": "vector"})
            found = (self._ask("GET", f"/v1/objects?{asked}") or {}).get("objects") or []
            if found:
                yield found
                after = str(found[-1]["id"])
            if len(found) < size:
                return

    def times(self, name: str) -> dict[str, str]:
        """The id of every object and when it was written last, in the order of their ids."""
        found: dict[str, str] = {}
        after = ""
        while True:
            page = self._query(
                "Get", name, "_additional{id lastUpdateTimeUnix}", f'(limit:{_LIST_PAGE} after:"{after}")'
            )
            found.update((one["_additional"]["id"], one["_additional"]["lastUpdateTimeUnix"]) for one in page)
            if len(page) < _LIST_PAGE:
                return found
            after = str(page[-1]["_additional"]["id"])

    def get(self, name: str, identifier: str) -> dict[str, Any] | None:
        return self._ask("GET", f"/v1/objects/{quote(name)}/{identifier}?include=vector", absent=True)

    def insert(self, objects: Iterable[dict[str, Any]]) -> None:
        """Objects with their own ids; one that is there is replaced."""
        given = list(objects)
        if not given:
            return
        answer = self._ask("POST", "/v1/batch/objects", {"objects": given, "fields": ["ALL"]}) or []
        for one in answer:
            errors = ((one.get("result") or {}).get("errors") or {}).get("error") or []
            if errors:
                raise WeaviateError(f"Weaviate does not take object {one.get('id')} ({errors[0].get('message')})")
        if len(answer) != len(given):
            raise WeaviateError(f"Weaviate answers for {len(answer)} of {len(given)} objects")

    def remove(self, name: str, identifier: str) -> None:
        self._ask("DELETE", f"/v1/objects/{quote(name)}/{identifier}", absent=True)

    def nearest(self, name: str, vector: list[float], target: str = "", limit: int = 1) -> list[dict[str, Any]]:
        """The objects next to a vector, as {id, distance}. Dify 1.9.2 and later name the C(target)."""
        named = f' targetVectors:["{target}"]' if target else ""
        arguments = f"(limit:{limit} nearVector:{{vector:{json.dumps(vector)}{named}}})"
        return [one["_additional"] for one in self._query("Get", name, "_additional{id distance}", arguments)]

    def _query(self, kind: str, name: str, fields: str, arguments: str = "") -> list[dict[str, Any]]:
        answer = self._ask("POST", "/v1/graphql", {"query": f"{{{kind}{{{name}{arguments}{{{fields}}}}}}}"}) or {}
        if answer.get("errors"):
            raise WeaviateError(f"Weaviate cannot read {name} ({answer['errors'][0].get('message')})")
        return (answer["data"][kind] or {}).get(name) or []

    def _ask(self, method: str, path: str, body: Any = None, absent: bool = False) -> Any:
        """The decoded answer; None where there is none, and for 404 where that is expected."""
        shown = f"{method} {path.split('?')[0]}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            status, text = self._exchange(method, path, data, headers)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise WeaviateError(f"Weaviate does not answer {shown} ({exc or type(exc).__name__})") from None
        if absent and status == 404:
            return None
        if status >= 300:
            raise WeaviateError(f"Weaviate answers {shown} with {status}{_reason(text)}")
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            raise WeaviateError(f"Weaviate answers {shown} with something that is not JSON") from None

    def _exchange(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is not None:
            try:
                return _send(self._connection, method, path, data, headers)
            except (ConnectionError, http.client.BadStatusLine):  # a kept one that the server has closed meanwhile
                self.close()
        self._connection = http.client.HTTPConnection(self.address, self.port, timeout=self._timeout)
        return _send(self._connection, method, path, data, headers)


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, data: bytes | None, headers: dict[str, str]
) -> tuple[int, bytes]:
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    return response.status, response.read()


def _reason(text: bytes) -> str:
    try:
        answer = json.loads(text)
        errors = answer.get("error") or answer.get("message") or ""
        said = errors[0].get("message", "") if isinstance(errors, list) and errors else str(errors)
    except (ValueError, AttributeError):
        return ""
    return f" ({said[:300]})" if said else ""
