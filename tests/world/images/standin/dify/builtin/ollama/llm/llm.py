# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's language models, asked over HTTP."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import Any

from core.model_runtime.entities.llm_entities import LLMResult, LLMResultChunk, LLMResultChunkDelta, LLMUsage
from core.model_runtime.entities.message_entities import AssistantPromptMessage
from core.model_runtime.errors import invoke
from core.model_runtime.model_providers.__base.large_language_model import LargeLanguageModel
from standin.api import legacy_ollama

NOTHING = "0E-7"  # a price, as the sums of this release write it
UNIT = {"prompt_unit_price": "0", "prompt_price_unit": "0", "completion_unit_price": "0", "completion_price_unit": "0"}
PRICES = {**UNIT, "prompt_price": NOTHING, "completion_price": NOTHING, "total_price": NOTHING}


class OllamaLargeLanguageModel(LargeLanguageModel):
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        prompt_messages: list[Any],
        model_parameters: dict[str, Any],
        tools: list[Any] | None,
        stop: list[str] | None,
        stream: bool,
        user: str | None,
    ) -> LLMResult | Generator[LLMResultChunk, None, None]:
        messages = [{"role": message.role.value, "content": message.content} for message in prompt_messages]
        started = time.monotonic()
        try:
            pieces = legacy_ollama.chat(model, credentials, messages, model_parameters, stream=stream)
        except legacy_ollama.ModelServerError as error:
            raise _raised(error) from error
        chunks = self._chunks(model, pieces, started)
        if stream:
            return chunks
        result = LLMResult(model, AssistantPromptMessage(content=[]), LLMUsage())
        for chunk in chunks:
            result = LLMResult(model, chunk.delta.message, chunk.delta.usage or LLMUsage())
        return result

    def _chunks(
        self, model: str, pieces: Iterator[tuple[str, dict[str, int] | None]], started: float
    ) -> Generator[LLMResultChunk, None, None]:
        try:
            for index, (text, counts) in enumerate(pieces):
                usage = None
                if counts is not None:
                    more = {"total_tokens": sum(counts.values()), "latency": time.monotonic() - started}
                    usage = LLMUsage.of({**counts, **more, **PRICES})
                message = AssistantPromptMessage(content=text)
                reason = None if usage is None else "stop"
                yield LLMResultChunk(model, LLMResultChunkDelta(index, message, usage, reason))
        except legacy_ollama.ModelServerError as error:
            raise _raised(error) from error


def _raised(error: legacy_ollama.ModelServerError) -> Exception:
    return getattr(invoke, legacy_ollama.ERRORS.get(error.family, "InvokeError"))(str(error))
