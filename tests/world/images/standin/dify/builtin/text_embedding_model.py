# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider's embedding model is derived from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from core.model_runtime.entities.text_embedding_entities import EmbeddingInputType, TextEmbeddingResult


class TextEmbeddingModel(ABC):
    def invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        user: str | None = None,
        input_type: EmbeddingInputType = EmbeddingInputType.DOCUMENT,
    ) -> TextEmbeddingResult:
        return self._invoke(model, credentials, texts, user, input_type)

    @abstractmethod
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        user: str | None,
        input_type: EmbeddingInputType,
    ) -> TextEmbeddingResult:
        raise NotImplementedError
