# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/api/embed of an Ollama server as an embedding model of Dify."""

from __future__ import annotations

import time
from typing import Any

from dify_plugin import TextEmbeddingModel
from dify_plugin.entities.model import AIModelEntity, EmbeddingInputType, ModelType
from dify_plugin.entities.model.text_embedding import EmbeddingUsage, TextEmbeddingResult
from dify_plugin.errors.model import InvokeError
from models import server


class OllamaEmbeddingModel(TextEmbeddingModel):
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        user: str | None = None,
        input_type: EmbeddingInputType = EmbeddingInputType.DOCUMENT,
    ) -> TextEmbeddingResult:
        reply = server.post(credentials, "api/embed", {"model": model, "input": texts}).json()
        tokens = sum(self.get_num_tokens(model, credentials, texts))
        usage = EmbeddingUsage(
            tokens=tokens,
            total_tokens=tokens,
            unit_price=0,
            price_unit=0,
            total_price=0,
            currency="USD",
            latency=time.perf_counter() - self.started_at,
        )
        return TextEmbeddingResult(model=model, embeddings=reply["embeddings"], usage=usage)

    def get_num_tokens(self, model: str, credentials: dict[str, Any], texts: list[str]) -> list[int]:
        return [server.rough_tokens(text) for text in texts]

    def validate_credentials(self, model: str, credentials: dict[str, Any]) -> None:
        try:
            self._invoke(model, credentials, ["ping"])
        except Exception as error:
            raise server.refused(error) from error

    def get_customizable_model_schema(self, model: str, credentials: dict[str, Any]) -> AIModelEntity:
        return server.schema(model, ModelType.TEXT_EMBEDDING, credentials, {"max_chunks": 1})

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return server.ERRORS
