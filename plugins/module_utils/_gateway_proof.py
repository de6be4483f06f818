# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Nodes proved through their gateway: on the way that calls will take, each model that a node is said to have."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._http import Http, HttpError, Response
from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of
from ansible_collections.llmops.stack.plugins.module_utils._ollama_probe import ProbeError, probe

__all__ = ["Proof", "prove"]

# A proof waits for a node and takes no time of this host.
_AT_A_TIME = 50


class Proof(NamedTuple):
    proved: list[str]  # models
    error: str  # a sentence about the first that failed


class _Pinned(Http):
    """Asks one node through the gateway, and takes no other's word."""

    def __init__(self, node: str, key: str) -> None:
        super().__init__()
        self.node = node
        self.sent = {"X-Llmops-Node": node, **({"Authorization": f"Bearer {key}"} if key else {})}

    def request(
        self, method: str, url: str, timeout: float, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Response:
        answer = super().request(method, url, timeout, {**self.sent, **(headers or {})}, body)
        if answer.status == 200 and answer.headers.get("X-Node") != self.node:
            raise HttpError("protocol", url)
        return answer


def prove(url: str, key: str, records: Mapping[str, Mapping[str, Any]], seconds: float) -> dict[str, Proof]:
    """Args: C(url): of the gateway as this host reaches it. C(seconds): for each model."""
    if not records:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(records), _AT_A_TIME)) as pool:
        waiting = {name: pool.submit(_node, url, key, name, node, seconds) for name, node in records.items()}
        return {name: proof.result() for name, proof in waiting.items()}


def _node(url: str, key: str, name: str, node: Mapping[str, Any], seconds: float) -> Proof:
    api = Ollama(url, _Pinned(name, key))
    proved: list[str] = []
    try:
        api.version()
        listed = _listed(api) if node["models"] else {}
        for model, digest in node["models"].items():
            found = listed.get(model, "")
            if found != digest:
                return Proof(proved, f"{name} does not have {model} as it was proved there: {_told(found, digest)}")
            probe(api, model, seconds)
            proved.append(model)
    except (ApiError, ProbeError) as exc:
        return Proof(proved, f"{name} did not pass its proof through the gateway: {exc}")
    return Proof(proved, "")


def _listed(api: Ollama) -> dict[str, str]:
    return {key_of(str(one.get("name"))): str(one.get("digest") or "") for one in api.tags()}


def _told(found: str, digest: str) -> str:
    if not found:
        return "it lists no such model."
    return f"it lists {found[:12]}, not {digest[:12]}."
