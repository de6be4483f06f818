# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunks and results of a language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from core.model_runtime.entities.message_entities import AssistantPromptMessage, PromptMessage


@dataclass
class LLMUsage:
    """`latency` and the two times are seconds, prices are Decimal."""

    prompt_tokens: int = 0
    prompt_unit_price: Decimal = Decimal("0.0")
    prompt_price_unit: Decimal = Decimal("0.0")
    prompt_price: Decimal = Decimal("0.0")
    completion_tokens: int = 0
    completion_unit_price: Decimal = Decimal("0.0")
    completion_price_unit: Decimal = Decimal("0.0")
    completion_price: Decimal = Decimal("0.0")
    total_tokens: int = 0
    total_price: Decimal = Decimal("0.0")
    currency: str = "USD"
    latency: float = 0.0
    time_to_first_token: float | None = None  # has: usage_timings
    time_to_generate: float | None = None  # has: usage_timings

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LLMUsage:
        """From JSON, in which a price is text."""
        known = {one.name for one in dataclasses.fields(cls)} & given.keys()
        values: dict[str, Any] = {name: Decimal(given[name]) if "price" in name else given[name] for name in known}
        return cls(**values)


@dataclass
class LLMResultChunkDelta:
    index: int
    message: AssistantPromptMessage
    usage: LLMUsage | None = None
    finish_reason: str | None = None


@dataclass
class LLMResultChunk:
    model: str
    delta: LLMResultChunkDelta
    prompt_messages: list[PromptMessage] = field(default_factory=list)
    system_fingerprint: str | None = None


@dataclass
class LLMResult:
    model: str
    message: AssistantPromptMessage
    usage: LLMUsage
    prompt_messages: list[PromptMessage] = field(default_factory=list)
    system_fingerprint: str | None = None
