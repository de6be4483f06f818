# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an embedding model answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any


class EmbeddingInputType(Enum):
    DOCUMENT = "document"
    QUERY = "query"


@dataclass
class EmbeddingUsage:
    tokens: int = 0
    total_tokens: int = 0
    unit_price: Decimal = Decimal("0.0")
    price_unit: Decimal = Decimal("0.0")
    total_price: Decimal = Decimal("0.0")
    currency: str = "USD"
    latency: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> EmbeddingUsage:
        known = {one.name for one in dataclasses.fields(cls)} & given.keys()
        values: dict[str, Any] = {name: Decimal(given[name]) if "price" in name else given[name] for name in known}
        return cls(**values)


@dataclass
class TextEmbeddingResult:
    model: str
    embeddings: list[list[float]]
    usage: EmbeddingUsage
