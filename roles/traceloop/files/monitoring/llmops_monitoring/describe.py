# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads Dify's arguments, chunks and results by their shape: the classes moved between packages, the shapes did not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .event import EMBEDDINGS, Error, Event

SHORT = 64  # a parameter longer than this is text, not a setting
MESSAGE = 512
_ADDRESS_KEYS = ("base_url", "endpoint_url", "openai_api_base", "api_base", "server_url")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,80}")


def event_of(kind: str, owner: Any, fields: Mapping[str, Any]) -> Event:
    event = Event(kind, _provider(owner, fields), str(fields.get("model") or ""))
    event.stream = kind == "chat" and bool(fields.get("stream", True))
    event.parameters = _parameters(fields)
    event.app_id = _text(fields.get("app_id"))
    event.user = _text(fields.get("user_id") or fields.get("user"))
    event.tenant_id = _text(fields.get("tenant_id") or getattr(owner, "tenant_id", None))
    event.plugin_id = _text(fields.get("plugin_id"))
    inputs = next((fields[key] for key in ("prompt_messages", "texts", "documents", "docs") if fields.get(key)), ())
    event.inputs = len(inputs) if hasattr(inputs, "__len__") else None
    event.server_address, event.server_port = _address(fields.get("credentials"))
    query = fields.get("query")
    event._prompt = lambda: _messages(inputs, query)  # and not `fields`: credentials are in there
    return event


def _provider(owner: Any, fields: Mapping[str, Any]) -> str:
    """`langgenius/ollama/ollama` is ollama. Before 1.0 a provider is the folder that its model class lives in."""
    named = fields.get("provider")
    if named:
        return str(named).rsplit("/", 1)[-1]
    parts = type(owner).__module__.split(".")
    return parts[parts.index("model_providers") + 1] if "model_providers" in parts[:-1] else ""


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in (fields.get("model_parameters") or {}).items():
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= SHORT):
            found[str(name)] = value
    stop = fields.get("stop")
    if stop:
        found["stop"] = [str(word)[:SHORT] for word in stop]
    for name in ("input_type", "top_n", "score_threshold"):
        value = fields.get(name)
        if value is not None:
            found[name] = getattr(value, "value", value)
    return found


def _address(credentials: Any) -> tuple[str | None, int | None]:
    """Host and port of the model server; a URL may hold a password, so nothing else of it."""
    if isinstance(credentials, Mapping):
        for key in _ADDRESS_KEYS:
            url = credentials.get(key)
            if isinstance(url, str) and "://" in url:
                try:
                    parts = urlsplit(url)
                    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
                except ValueError:
                    return None, None
    return None, None


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _messages(inputs: Any, query: Any) -> list[tuple[str, str]]:
    found = [("query", text_of(query))] if query else []
    for item in inputs:
        role = getattr(item, "role", None)
        found.append((str(getattr(role, "value", role) or "document"), text_of(getattr(item, "content", item))))
    return found


def text_of(content: Any) -> str:
    """Text of a message or of a part of one; of pictures and files only what they are."""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        return "".join(text_of(part) for part in content)
    if isinstance(content, Mapping):
        return text_of(content.get("content") or content.get("text") or "")
    kind = getattr(content, "type", None)
    kind = str(getattr(kind, "value", kind) or "")
    return str(getattr(content, "data", "")) if kind == "text" else (f"[{kind}]" if kind else "")


def usage_of(usage: Any, kind: str) -> dict[str, Any]:
    total = getattr(usage, "total_tokens", None)
    asked = getattr(usage, "tokens" if kind == EMBEDDINGS else "prompt_tokens", None)
    found: dict[str, Any] = {
        "prompt_tokens": _number(asked if asked is not None else total),
        "completion_tokens": _number(getattr(usage, "completion_tokens", 0)),
        "total_tokens": _number(total),
    }
    price = getattr(usage, "total_price", None)
    if price:
        found["total_price"] = float(price)
        found["currency"] = str(getattr(usage, "currency", "") or "")
    return found


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def error_of(exc: BaseException, content: bool) -> Error:
    said = getattr(exc, "description", None)
    text = said if isinstance(said, str) else str(exc)
    return Error(type(exc).__name__, text[:MESSAGE] if content else "", _cause(text))


def _cause(text: str) -> str:
    """A failing plugin is told as JSON `{"error_type": …, "message": …, "args": …}`, sometimes with words before it."""
    start = text.find("{")
    if '"error_type"' not in text or start < 0:
        return ""
    try:
        told = json.JSONDecoder().raw_decode(text[start:])[0]
    except ValueError:
        return ""
    named = told.get("error_type") if isinstance(told, dict) else None
    return named if isinstance(named, str) and _NAME.fullmatch(named) else ""
