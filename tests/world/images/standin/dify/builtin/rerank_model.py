# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider's rerank model is derived from; Ollama has none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from core.model_runtime.entities.rerank_entities import RerankResult


class RerankModel(ABC):
    def invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        query: str,
        docs: list[str],
        score_threshold: float | None = None,
        top_n: int | None = None,
        user: str | None = None,
    ) -> RerankResult:
        return self._invoke(model, credentials, query, docs, score_threshold, top_n, user)

    @abstractmethod
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        query: str,
        docs: list[str],
        score_threshold: float | None,
        top_n: int | None,
        user: str | None,
    ) -> RerankResult:
        raise NotImplementedError
