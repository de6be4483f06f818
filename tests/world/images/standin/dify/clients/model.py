# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that every call of a model passes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from core.model_runtime.entities.llm_entities import LLMResultChunk, LLMResultChunkDelta, LLMUsage
from core.model_runtime.entities.message_entities import AssistantPromptMessage
from core.model_runtime.entities.rerank_entities import RerankDocument, RerankResult
from core.model_runtime.entities.text_embedding_entities import EmbeddingUsage, TextEmbeddingResult
from core.plugin.impl.base import BasePluginClient


def _message(message: Any) -> dict[str, Any]:
    return {"role": message.role.value, "content": message.content, "name": message.name}


def _chunk(piece: dict[str, Any]) -> LLMResultChunk:
    delta = piece["delta"]
    return LLMResultChunk(
        model=piece["model"],
        delta=LLMResultChunkDelta(
            index=delta.get("index", 0),
            message=AssistantPromptMessage(delta["message"].get("content"), delta["message"].get("tool_calls") or []),
            usage=LLMUsage.of(delta["usage"]) if delta.get("usage") else None,
            finish_reason=delta.get("finish_reason"),
        ),
    )


def _embeddings(piece: dict[str, Any]) -> TextEmbeddingResult:
    return TextEmbeddingResult(piece["model"], piece["embeddings"], EmbeddingUsage.of(piece["usage"]))


def _ranking(piece: dict[str, Any]) -> RerankResult:
    documents = [RerankDocument(item["index"], item["text"], item["score"]) for item in piece["docs"]]
    return RerankResult(piece["model"], documents)


class PluginModelClient(BasePluginClient):
    def invoke_llm(
        self,
        tenant_id: str,
        user_id: str | None,
        plugin_id: str,
        provider: str,
        model: str,
        credentials: dict[str, Any],
        prompt_messages: list[Any],
        model_parameters: dict[str, Any] | None = None,
        tools: list[Any] | None = None,
        stop: list[str] | None = None,
        stream: bool = True,
        app_id: str | None = None,  # has: no_user_id_in_dispatch
    ) -> Generator[LLMResultChunk, None, None]:
        data = {
            "provider": provider,
            "model_type": "llm",
            "model": model,
            "credentials": credentials,
            "prompt_messages": [_message(message) for message in prompt_messages],
            "model_parameters": model_parameters,
            "tools": tools,
            "stop": stop,
            "stream": stream,
        }
        body: dict[str, Any] = {"data": data}
        body["user_id"] = user_id  # lacks: no_user_id_in_dispatch
        body |= {"app_id": app_id} if app_id else {}  # has: no_user_id_in_dispatch
        yield from self._request_with_plugin_daemon_response_stream(
            "POST",
            f"plugin/{tenant_id}/dispatch/llm/invoke",
            _chunk,
            data=body,
            headers={"X-Plugin-ID": plugin_id, "Content-Type": "application/json"},
        )

    def invoke_text_embedding(
        self,
        tenant_id: str,
        user_id: str | None,
        plugin_id: str,
        provider: str,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        input_type: Any,
    ) -> TextEmbeddingResult:
        data = {
            "provider": provider,
            "model_type": "text-embedding",
            "model": model,
            "credentials": credentials,
            "texts": texts,
            "input_type": input_type.value,
        }
        return self._first("text_embedding", _embeddings, tenant_id, user_id, plugin_id, data)

    def invoke_rerank(
        self,
        tenant_id: str,
        user_id: str | None,
        plugin_id: str,
        provider: str,
        model: str,
        credentials: dict[str, Any],
        query: str,
        docs: list[str],
        score_threshold: float | None = None,
        top_n: int | None = None,
    ) -> RerankResult:
        data = {
            "provider": provider,
            "model_type": "rerank",
            "model": model,
            "credentials": credentials,
            "query": query,
            "docs": docs,
            "score_threshold": score_threshold,
            "top_n": top_n,
        }
        return self._first("rerank", _ranking, tenant_id, user_id, plugin_id, data)

    def _first(
        self, area: str, type_: Any, tenant_id: str, user_id: str | None, plugin_id: str, data: dict[str, Any]
    ) -> Any:
        body: dict[str, Any] = {"data": data}
        body["user_id"] = user_id  # lacks: no_user_id_in_dispatch
        for result in self._request_with_plugin_daemon_response_stream(
            "POST",
            f"plugin/{tenant_id}/dispatch/{area}/invoke",
            type_,
            data=body,
            headers={"X-Plugin-ID": plugin_id, "Content-Type": "application/json"},
        ):
            return result
        raise ValueError(f"Failed to invoke {area.replace('_', ' ')}")
