# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a model call's event to attributes. Nothing here knows OpenTelemetry, and nothing here sees a credential."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from . import names

APPS = 200  # apps with series of their own in the metrics of one process; the rest share one
LEGACY_MESSAGES = 32  # two attributes each; a span has room for 128 and lets go of the oldest
_apps: set[str] = set()


def span_name(event: Any) -> str:
    return f"{names.OPERATIONS.get(event.kind, event.kind)} {event.model}"


def request(event: Any) -> dict[str, Any]:
    """What is known before the call."""
    found: dict[str, Any] = {
        **_common(event),
        names.LEGACY_SYSTEM: provider(event),
        names.LEGACY_REQUEST_TYPE: names.OPERATIONS.get(event.kind, event.kind),
    }
    if event.kind == "chat":
        found[names.REQUEST_STREAM] = found[names.LEGACY_STREAMING] = bool(event.stream)
        found[names.OUTPUT_TYPE] = "json" if _asks_for_json(event.parameters) else "text"
    for key, (name, convert) in names.PARAMETERS.items():
        value = event.parameters.get(key)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                found[name] = convert(value)
            except (ValueError, OverflowError):  # a parameter that the model will refuse; the span need not have it
                continue
    if event.app_id:
        found[names.APP_ID] = found[names.ASSOCIATION.format(key="app_id")] = str(event.app_id)
    if event.tenant_id:
        found[names.TENANT_ID] = found[names.ASSOCIATION.format(key="tenant_id")] = str(event.tenant_id)
    if event.user:
        # Tells users apart and calls of one user together, without saying who it is.
        found[names.USER_HASH] = hashlib.sha256(str(event.user).encode("utf-8", "replace")).hexdigest()[:16]
    return found


def response(event: Any) -> dict[str, Any]:
    """What is known after it."""
    found: dict[str, Any] = {names.OUTCOME: event.outcome}
    if event.response_model:
        found[names.RESPONSE_MODEL] = str(event.response_model)
    if event.finish_reason:
        found[names.FINISH_REASONS] = [str(event.finish_reason)]
    if event.time_to_first_chunk is not None and event.stream:
        found[names.TIME_TO_FIRST_CHUNK] = event.time_to_first_chunk
    usage = event.usage or {}
    for key, targets in (
        ("prompt_tokens", (names.INPUT_TOKENS,)),
        ("completion_tokens", (names.OUTPUT_TOKENS,)),
        ("total_tokens", (names.TOTAL_TOKENS, names.LEGACY_TOTAL_TOKENS)),
    ):
        if _is_count(usage.get(key)):
            found.update(dict.fromkeys(targets, int(usage[key])))
    if event.error:
        found[names.ERROR_TYPE] = event.error.type
        if event.error.cause:
            found[names.ERROR_CAUSE] = event.error.cause
    return found


def bare(event: Any) -> dict[str, Any]:
    """What can be said of a call whose description cannot be had or sent."""
    return {names.OPERATION: names.OPERATIONS.get(event.kind, "unknown"), names.OUTCOME: event.outcome}


def status(event: Any, limit: int) -> str:
    """The status text of a failed call, empty for any other. Errors quote prompts: no message with `limit` 0."""
    if not event.error:
        return ""
    message = event.error.message[:limit]
    return f"{event.error.type}: {message}" if message else event.error.type


def content(event: Any, limit: int) -> dict[str, Any]:
    """Prompt and answer, each cut at `limit`; none for 0, though another plugin may have asked for them."""
    if event.content is None or not limit:
        return {}
    messages, room = [], limit
    for role, text in event.content.messages:
        messages.append((role, text[:room]))
        room = max(0, room - len(text))
    answer = event.content.answer[:limit]
    found: dict[str, Any] = {
        names.INPUT_MESSAGES: json.dumps([_message(*item) for item in messages], ensure_ascii=False)
    }
    for index, (role, text) in enumerate(messages[:LEGACY_MESSAGES]):
        found[names.LEGACY_PROMPT.format(index=index, field="role")] = role
        found[names.LEGACY_PROMPT.format(index=index, field="content")] = text
    if answer:
        found[names.OUTPUT_MESSAGES] = json.dumps([_message("assistant", answer)], ensure_ascii=False)
        found[names.LEGACY_COMPLETION.format(index=0, field="role")] = "assistant"
        found[names.LEGACY_COMPLETION.format(index=0, field="content")] = answer
    return found


def measurements(event: Any) -> list[tuple[str, float, dict[str, Any]]]:
    """(metric, value, attributes): few values per attribute, and no user."""
    common = {**_common(event), names.OUTCOME: event.outcome}
    if event.app_id:
        common[names.APP_ID] = _bounded(str(event.app_id))
    duration = event.duration or 0.0
    failed = {names.ERROR_TYPE: event.error.type} if event.error else {}
    found = [(names.DURATION, duration, {**common, **failed})]
    first = event.time_to_first_chunk
    if first is not None and event.stream:
        found.append((names.FIRST_CHUNK, first, common))
    usage = event.usage or {}
    for key, kind in (("prompt_tokens", "input"), ("completion_tokens", "output")):
        if _is_count(usage.get(key)):
            found.append((names.TOKEN_USAGE, int(usage[key]), {**common, names.TOKEN_TYPE: kind}))
    tokens: Any = usage.get("completion_tokens")
    if event.stream and first is not None and _is_count(tokens) and tokens > 1 and duration > first:
        # The first token came with the first chunk: the time after it made the others.
        found.append((names.TOKEN_RATE, (tokens - 1) / (duration - first), common))
    return found


def provider(event: Any) -> str:
    """`langgenius/ollama/ollama` -> `ollama`."""
    return str(event.provider or "unknown").rsplit("/", 1)[-1].lower()


def _common(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        names.OPERATION: names.OPERATIONS.get(event.kind, event.kind),
        names.PROVIDER: provider(event),
        names.REQUEST_MODEL: str(event.model),
    }
    if event.server_address:
        found[names.SERVER_ADDRESS] = event.server_address
        if event.server_port:
            found[names.SERVER_PORT] = event.server_port
    return found


def _asks_for_json(parameters: dict[str, Any]) -> bool:
    return any(str(parameters.get(key) or "").startswith("json") for key in ("format", "response_format"))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _bounded(app: str) -> str:
    if app in _apps or len(_apps) < APPS:
        _apps.add(app)
        return app
    return "other"
