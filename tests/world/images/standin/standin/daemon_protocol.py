# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon and a plugin's process say to each other: the plugin SDK's JSON objects, one a line.

To the plugin's stdin go requests, each with the id of its session. From its stdout come its manifest, heartbeats, log
messages, and for every session pieces of an answer, at most one error, and an end.
"""

from __future__ import annotations

import decimal
import json
from typing import Any

# The last two parts of a dispatch route -> type and action in the SDK's words.
ACTIONS = {
    "llm/invoke": ("model", "invoke_llm"),
    "llm/num_tokens": ("model", "get_llm_num_tokens"),
    "text_embedding/invoke": ("model", "invoke_text_embedding"),
    "text_embedding/num_tokens": ("model", "get_text_embedding_num_tokens"),
    "rerank/invoke": ("model", "invoke_rerank"),
    "model/validate_provider_credentials": ("model", "validate_provider_credentials"),
    "model/validate_model_credentials": ("model", "validate_model_credentials"),
    "model/schema": ("model", "get_ai_model_schemas"),
    "tool/invoke": ("tool", "invoke_tool"),
    "tool/validate_credentials": ("tool", "validate_tool_credentials"),
    "tool/get_runtime_parameters": ("tool", "get_tool_runtime_parameters"),
    "agent_strategy/invoke": ("agent_strategy", "invoke_agent_strategy"),
}
ROUTES = {name: route for route, name in ACTIONS.items()}
# Fields that a request need not have, and that the SDK wants to see all the same.
OPTIONAL: dict[str, dict[str, Any]] = {
    "llm/invoke": {"prompt_messages": None, "model_parameters": {}, "tools": None, "stop": None},
    "llm/num_tokens": {"prompt_messages": None, "tools": None},
}
PRICES = ("_price", "price_unit", "unit_price")


def request(session: str, route: str, user: str, data: dict[str, Any]) -> str:
    kind, action = ACTIONS[route]
    line = {
        "session_id": session,
        "conversation_id": None,
        "message_id": None,
        "app_id": None,
        "endpoint_id": None,
        "event": "request",
        "data": {"type": kind, "action": action, "user_id": user, **OPTIONAL.get(route, {}), **data},
    }
    return json.dumps(line) + "\n"


def event(line: str) -> tuple[str, str, dict[str, Any]]:
    """Kind (heartbeat, stream, error, end, or "" for what is of no consequence), session and data of a line."""
    try:
        found = json.loads(line)
    except ValueError:
        return "", "", {}
    if not isinstance(found, dict) or found.get("event") not in ("heartbeat", "session"):
        return "", "", {}
    if found["event"] == "heartbeat":
        return "heartbeat", "", {}
    session, message = found.get("session_id"), found.get("data")
    if not session or not isinstance(message, dict) or message.get("type") not in ("stream", "error", "end"):
        return "", "", {}
    data = message.get("data")
    return message["type"], str(session), data if isinstance(data, dict) else {}


def chunk(data: dict[str, Any]) -> dict[str, Any]:
    """A piece of a model's answer as the daemon passes it on: its own order of keys, no null where it has texts."""
    delta = data["delta"]
    said = delta["message"]
    message = {
        "role": said["role"],
        "content": said["content"],
        "name": said.get("name") or "",
        "tool_calls": said.get("tool_calls") or [],
        "tool_call_id": said.get("tool_call_id") or "",
        **{key: value for key, value in said.items() if key == "opaque_body"},
    }
    return {
        "model": data["model"],
        "system_fingerprint": data.get("system_fingerprint") or "",
        "delta": {
            "index": delta["index"],
            "message": message,
            "usage": _usage(delta["usage"]) if delta.get("usage") else None,
            "finish_reason": delta.get("finish_reason"),
        },
        "prompt_messages": data.get("prompt_messages") or [],
    }


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Prices are decimal numbers in texts; the SDK writes 0E-7 where the daemon writes 0."""
    return {key: _plain(value) if key.endswith(PRICES) else value for key, value in usage.items()}


def _plain(price: Any) -> str:
    text = f"{decimal.Decimal(str(price)):f}"
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text
