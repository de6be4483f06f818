# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A token, or an embedding: the sign of life of a model. It does not matter what it says, but that it does."""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse

_PROMPT = "Hello"
# One proves life. Its time is booked on the prompt, though, so that a speed needs some more.
_TOKENS = 8
_SECOND = 1e9

_ADVICE = (
    ("llama-server", "The installed release lacks a file: install it again (role ollama)."),
    ("llama-quantize", "The installed release lacks a file: install it again (role ollama)."),
    ("more system memory", "Give the host more memory, stop other models, or use a smaller one."),
    ("out of memory", "Give the host more memory, stop other models, or use a smaller one."),
    ("maximum pending requests", "The server is overloaded: try again later, or raise ollama_max_queue."),
    ("unknown model architecture", "The model needs a newer Ollama: raise ollama_version."),
    (
        "unable to load model",
        "The model may need another Ollama version; the server's log (journalctl -u ollama) says why.",
    ),
)


class ProbeError(Exception):
    """The model did not answer; the text says why and what to do."""


class Probed(NamedTuple):
    answer: dict[str, Any]  # kind (generate or embed), tokens, tokens_per_second, load_seconds
    capabilities: list[str]
    context_length: int  # what the server gave the model, 0 where it does not say


def capabilities(shown: dict[str, Any] | None, kind: str = "") -> list[str]:
    """What the server says that a model can do; old versions say nothing, and then how it answered tells."""
    said = (shown or {}).get("capabilities")
    if isinstance(said, list) and said:
        return [str(one) for one in said]
    return {"embed": ["embedding"], "generate": ["completion"]}.get(kind, [])


def probe(api: Ollama, name: str, seconds: float) -> Probed:
    """Have the model answer once.

    Raises:
        ProbeError: No token came in time.
    """
    end = time.monotonic() + seconds
    try:
        shown = api.show(name)
        answer = _first(api, name, _kinds(shown), end)
        return Probed(answer, capabilities(shown, str(answer["kind"])), _context_length(api, name))
    except ApiError as exc:
        advice = next((text for words, text in _ADVICE if words in exc.text), "")
        raise ProbeError(
            f"{name} is in the store but does not answer: {exc} "
            f"{advice or 'See what the server logged (journalctl -u ollama).'}"
        ) from exc


def _first(api: Ollama, name: str, kinds: list[str], end: float) -> dict[str, Any]:
    for kind in kinds[:-1]:
        try:
            return _ask(api, name, kind, end)
        except ApiError as exc:
            # The model is of the other kind.
            if exc.status not in (400, 501):
                raise
    return _ask(api, name, kinds[-1], end)


def _context_length(api: Ollama, name: str) -> int:
    """Of the model as it is loaded: less than what it could take, and what a longer text is cut to in silence."""
    wanted = parse(name).key
    with contextlib.suppress(ApiError):
        for model in api.ps():
            with contextlib.suppress(BadName):
                length = model.get("context_length")
                if parse(str(model.get("name", ""))).key == wanted and isinstance(length, int):
                    return length
    return 0


def _kinds(shown: dict[str, Any] | None) -> list[str]:
    """How the model may be asked, the likeliest way first. Old versions know no capabilities."""
    if shown is None:
        raise ProbeError("the server does not find the model's files any more. Run again, to have them verified.")
    capabilities = shown.get("capabilities") or []
    if capabilities:
        return ["embed"] if "embedding" in capabilities and "completion" not in capabilities else ["generate"]
    about = shown.get("model_info") or {}
    embeds = any(key.endswith(".pooling_type") for key in about) or "bert" in str(about.get("general.architecture"))
    return ["embed", "generate"] if embeds else ["generate", "embed"]


def _ask(api: Ollama, name: str, kind: str, end: float) -> dict[str, Any]:
    while True:
        left = max(1.0, end - time.monotonic())
        try:
            return _generate(api, name, left) if kind == "generate" else _embed(api, name, left)
        except ApiError as exc:
            if exc.status != 503 or time.monotonic() + 1 > end:
                raise
        time.sleep(1)


def _generate(api: Ollama, name: str, seconds: float) -> dict[str, Any]:
    answer = api.generate(name, _PROMPT, _TOKENS, seconds)
    tokens = answer.get("eval_count", 0)
    if answer.get("done") is not True or not isinstance(tokens, int) or tokens < 1:
        raise ProbeError(f"{name} answered without a token. See what the server logged (journalctl -u ollama).")
    return _measured("generate", answer, tokens, answer.get("eval_duration", 0))


def _embed(api: Ollama, name: str, seconds: float) -> dict[str, Any]:
    answer = api.embed(name, _PROMPT, seconds)
    vectors = answer.get("embeddings")
    if not isinstance(vectors, list) or not vectors or not vectors[0]:
        raise ProbeError(f"{name} answered without an embedding. See what the server logged (journalctl -u ollama).")
    spent = answer.get("total_duration", 0) - answer.get("load_duration", 0)
    return _measured("embed", answer, answer.get("prompt_eval_count", 0), spent)


def _measured(kind: str, answer: dict[str, Any], tokens: int, duration: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "tokens": tokens,
        "tokens_per_second": round(tokens * _SECOND / duration, 2) if duration > 0 else 0.0,
        "load_seconds": round(answer.get("load_duration", 0) / _SECOND, 3),
    }
