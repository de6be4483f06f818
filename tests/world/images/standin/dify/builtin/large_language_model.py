# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider's language model is derived from: the one place that each call of one passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

from core.model_runtime.entities.llm_entities import LLMResult, LLMResultChunk


class LargeLanguageModel(ABC):
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
        return self._invoke(model, credentials, prompt_messages, model_parameters or {}, tools, stop, stream, user)

    @abstractmethod
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
        raise NotImplementedError
