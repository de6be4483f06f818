# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A language model that a plugin provides; before the plugins the calls themselves were made here."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from core.model_runtime.entities.llm_entities import LLMResult, LLMResultChunk, LLMUsage
from core.model_runtime.entities.message_entities import AssistantPromptMessage
from core.plugin.impl.model import PluginModelClient


class LargeLanguageModel:
    def __init__(self, tenant_id: str, plugin_id: str, provider_name: str) -> None:
        self.tenant_id, self.plugin_id, self.provider_name = tenant_id, plugin_id, provider_name
        self.app_id = ""

    def invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        prompt_messages: list[Any],
        model_parameters: dict[str, Any] | None = None,
        tools: list[Any] | None = None,
        stop: list[str] | None = None,
        stream: bool = True,
        user: str | None = None,
        callbacks: list[Any] | None = None,
    ) -> LLMResult | Generator[LLMResultChunk, None, None]:
        more: dict[str, Any] = {"user_id": user or "unknown"}
        more = {"user_id": None, **({"app_id": self.app_id} if self.app_id else {})}  # has: no_user_id_in_dispatch
        chunks = PluginModelClient().invoke_llm(
            tenant_id=self.tenant_id,
            plugin_id=self.plugin_id,
            provider=self.provider_name,
            model=model,
            credentials=credentials,
            model_parameters=model_parameters or {},
            prompt_messages=prompt_messages,
            tools=tools,
            stop=stop,
            stream=stream,
            **more,
        )
        if stream:
            return self._invoke_result_generator(chunks)
        result = LLMResult(model, AssistantPromptMessage(content=[]), LLMUsage())
        for chunk in chunks:  # the first is the whole answer
            result = LLMResult(chunk.model, chunk.delta.message, chunk.delta.usage or LLMUsage())
            break
        self._drain(chunks)  # has: drains_blocking
        return result

    @staticmethod
    def _invoke_result_generator(
        chunks: Generator[LLMResultChunk, None, None],
    ) -> Generator[LLMResultChunk, None, None]:
        yield from chunks

    @staticmethod
    def _drain(chunks: Generator[LLMResultChunk, None, None]) -> None:
        """Read what nobody looks at, errors included, so that the connection is free."""
        try:
            for _ in chunks:
                pass
        except Exception:
            return
