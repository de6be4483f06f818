# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's embedding models, asked over HTTP."""

from __future__ import annotations

import time
from typing import Any

from core.model_runtime.entities.text_embedding_entities import EmbeddingInputType, EmbeddingUsage, TextEmbeddingResult
from core.model_runtime.errors import invoke
from core.model_runtime.model_providers.__base.text_embedding_model import TextEmbeddingModel
from standin.api import legacy_ollama


class OllamaEmbeddingModel(TextEmbeddingModel):
    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        user: str | None,
        input_type: EmbeddingInputType,
    ) -> TextEmbeddingResult:
        started = time.monotonic()
        try:
            embeddings = legacy_ollama.embed(model, credentials, texts)
        except legacy_ollama.ModelServerError as error:
            family = getattr(invoke, legacy_ollama.ERRORS.get(error.family, "InvokeError"))
            raise family(str(error)) from error
        tokens = sum(len(text.split()) or 1 for text in texts)
        usage = EmbeddingUsage(tokens=tokens, total_tokens=tokens, latency=time.monotonic() - started)
        return TextEmbeddingResult(model, embeddings, usage)
