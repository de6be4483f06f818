# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/plugin/:tenant_id/dispatch: calls that reach into a plugin's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from standin import daemon_protocol
from standin.daemon_cache import RedisError
from standin.daemon_database import DatabaseError
from standin.daemon_http import (
    SSE,
    Abort,
    Call,
    EventStream,
    Reply,
    dumps,
    error_object,
    failure,
    invalid,
    not_found_plugin,
)
from standin.daemon_manager import Manager
from standin.daemon_registry import Registry
from standin.daemon_runtime import Runtime, Unprepared
from standin.daemon_versions import Generation

_ENTITY = "InvokePluginRequest[github.com/langgenius/dify-plugin-daemon/pkg/entities/requests.{}].Data"
# action -> the request's name in the daemon, and the model type that it is for
MODEL_CALLS = {
    "llm/invoke": ("RequestInvokeLLM", "llm"),
    "llm/num_tokens": ("RequestGetLLMNumTokens", "llm"),
    "text_embedding/invoke": ("RequestInvokeTextEmbedding", "text-embedding"),
    "text_embedding/num_tokens": ("RequestGetTextEmbeddingNumTokens", "text-embedding"),
    "rerank/invoke": ("RequestInvokeRerank", "rerank"),
    "model/validate_model_credentials": ("RequestValidateModelCredentials", ""),
    "model/schema": ("RequestGetAIModelSchema", ""),
}
OTHER_CALLS = (
    "model/validate_provider_credentials",
    "tool/invoke",
    "tool/validate_credentials",
    "tool/get_runtime_parameters",
    "agent_strategy/invoke",
)


class Dispatch:
    def __init__(self, registry: Registry, manager: Manager) -> None:
        self._registry = registry
        self._manager = manager
        self._behaviour: Generation = registry.behaviour

    def call(self, action: str, call: Call) -> Reply | EventStream:
        plugin_id = call.headers.get("X-Plugin-ID", "")
        if not plugin_id:
            return failure(-400, "plugin_id is required", 400)
        try:
            row = self._registry.installation(call.arguments["tenant_id"], plugin_id)
        except (DatabaseError, RedisError) as error:
            return failure(-500, str(error), 500)
        if row is None:
            return not_found_plugin(404)
        return self._to(row["plugin_unique_identifier"], action, call)

    def tenantless(self, action: str, call: Call) -> Reply | EventStream:
        return self._to(call.headers.get("X-Plugin-Unique-Identifier", ""), action, call)

    def _to(self, identifier: str, action: str, call: Call) -> Reply | EventStream:
        runtime = self._manager.get(identifier)
        if runtime is None:
            return failure(-500, self._behaviour.no_node_text, 404)
        parameters = call.parameters() if call.is_json else {}
        given = parameters.get("data")
        data: dict[str, Any] = given if isinstance(given, dict) else {}
        refused = _validate(action, data)
        if refused is not None:
            return refused
        if action.startswith("tool/") and self._behaviour.tool_checked_by_daemon:
            return EventStream(iter([error_object(-500, "tool declaration not found")]))
        if self._behaviour.rejects_null_content and _null_content(data):
            # The daemon stops reading there and hands on what it has: an empty message, and nothing of what follows.
            data = {**data, "prompt_messages": [{"role": ""}], "model_parameters": None}
        return EventStream(self._events(runtime, action, str(parameters.get("user_id", "")), data, call))

    def _events(
        self, runtime: Runtime, action: str, user: str, data: dict[str, Any], call: Call
    ) -> Iterator[dict[str, Any]]:
        try:
            for event in runtime.call(action, user, data, self._registry.config.execution_timeout, call.gone):
                if event["event"] == "stream":
                    yield {"code": 0, "message": "success", "data": self._ordered(action, event["data"])}
                elif event["event"] == "error":
                    yield error_object(-500, dumps(dict(sorted(event["data"].items()))), "PluginInvokeError")
                elif event["event"] != "end":
                    yield error_object(
                        -500, "no proper instance" if event["event"] == "no_instance" else "killed by timeout"
                    )
        except Unprepared as error:
            # A panic of the real daemon, caught by its web framework after the content type was set.
            raise Abort(Reply(500, b"", SSE)) from error

    def _ordered(self, action: str, piece: dict[str, Any]) -> dict[str, Any]:
        if action == "llm/invoke":
            piece = daemon_protocol.chunk(piece)
            if self._behaviour.prompt_messages_second:
                return {"model": piece["model"], "prompt_messages": piece["prompt_messages"], **piece}
            return piece
        if "credentials" in piece:
            return {**piece, "credentials": dict(sorted(piece["credentials"].items()))}
        return piece


def _null_content(data: dict[str, Any]) -> bool:
    messages = data.get("prompt_messages")
    return isinstance(messages, list) and any(
        isinstance(message, dict) and message.get("content") is None for message in messages
    )


def _validate(action: str, data: dict[str, Any]) -> Reply | None:
    if action not in MODEL_CALLS:
        missing = not data.get("provider")
        entity = _ENTITY.format("RequestValidateProviderCredentials")
        return invalid((f"{entity}.Provider", "Provider", "required")) if missing else None
    name, kind = MODEL_CALLS[action]
    entity = _ENTITY.format(name)
    failed = [
        (f"{entity}.BaseRequestInvokeModel.{field}", field, "required")
        for field in ("Provider", "Model")
        if not data.get(field.lower())
    ]
    if not data.get("model_type"):
        failed.append((f"{entity}.ModelType", "ModelType", "required"))
    elif kind and data["model_type"] != kind:
        failed.append((f"{entity}.ModelType", "ModelType", "eq"))
    return invalid(*failed) if failed else None
