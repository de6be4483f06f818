# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An embedding model that a plugin provides."""

from __future__ import annotations

from typing import Any

from core.model_runtime.entities.text_embedding_entities import EmbeddingInputType, TextEmbeddingResult
from core.plugin.impl.model import PluginModelClient


class TextEmbeddingModel:
    def __init__(self, tenant_id: str, plugin_id: str, provider_name: str) -> None:
        self.tenant_id, self.plugin_id, self.provider_name = tenant_id, plugin_id, provider_name

    def invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        user: str | None = None,
        input_type: EmbeddingInputType = EmbeddingInputType.DOCUMENT,
    ) -> TextEmbeddingResult:
        user = user or "unknown"  # lacks: no_user_id_in_dispatch
        return PluginModelClient().invoke_text_embedding(
            tenant_id=self.tenant_id,
            user_id=user,
            plugin_id=self.plugin_id,
            provider=self.provider_name,
            model=model,
            credentials=credentials,
            texts=texts,
            input_type=input_type,
        )
