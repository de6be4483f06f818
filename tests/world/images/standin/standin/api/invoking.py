# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The models of a workspace, as objects of the release's own modules (tree.py): every call of one goes through them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from standin import versions
from standin.api.providers import Provider


def _runtime(name: str) -> Any:
    return importlib.import_module(f"{versions.pick(versions.MODEL_RUNTIME)}.{name}")


def _class(kind: str, name: str) -> Any:
    """The class of a kind of models: one for all plugins, or Ollama's own where providers are built in."""
    if not versions.has("plugins"):
        folder, own = {"large_language_model": ("llm", "OllamaLargeLanguageModel")}.get(
            kind, ("text_embedding", "OllamaEmbeddingModel")
        )
        return getattr(_runtime(f"model_providers.ollama.{folder}.{folder}"), own)
    return getattr(_runtime(f"model_providers.{versions.pick(versions.MODEL_BASES)}.{kind}"), name)


def load() -> None:
    """At the start of a process, as Dify does: whoever wraps these functions does it when they are imported."""
    _class("large_language_model", "LargeLanguageModel")
    _class("text_embedding_model", "TextEmbeddingModel")


def _owner(tenant_id: str, provider: Provider) -> tuple[str, ...]:
    return (tenant_id, provider.plugin_id, provider.short_name) if versions.has("plugins") else ()


def language_model(tenant_id: str, provider: Provider, app_id: str = "") -> Any:
    model = _class("large_language_model", "LargeLanguageModel")(*_owner(tenant_id, provider))
    model.app_id = app_id
    return model


def embedding_model(tenant_id: str, provider: Provider) -> Any:
    return _class("text_embedding_model", "TextEmbeddingModel")(*_owner(tenant_id, provider))


def messages(given: Iterable[dict[str, Any]]) -> list[Any]:
    entities = _runtime("entities.message_entities")
    return [
        entities.PromptMessage(entities.PromptMessageRole(one["role"]), one["content"], one.get("name"))
        for one in given
    ]


def document() -> Any:
    """What an embedded text is: not a question."""
    return _runtime("entities.text_embedding_entities").EmbeddingInputType.DOCUMENT


def question() -> Any:
    return _runtime("entities.text_embedding_entities").EmbeddingInputType.QUERY
