# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model call passes, by generation of Dify. One row is one function; nothing else knows Dify's names.

From 1.0 on every call crosses the client of the plugin daemon. Those releases keep the older base classes too, and call
the client through them: they are wrapped only where no plugin daemon exists, or a call would be seen twice.
"""

from __future__ import annotations

from typing import NamedTuple

from .event import CHAT, EMBEDDINGS, RERANK


class Target(NamedTuple):
    generation: str
    module: str
    cls: str
    function: str
    kind: str
    required: bool = False  # absent: this Dify is unknown to us
    unless: str = ""  # a package of Dify whose presence rules the row out


_BASE = "core.model_runtime.model_providers.__base"


def _client(generation: str, module: str, cls: str) -> tuple[Target, ...]:
    return (
        Target(generation, module, cls, "invoke_llm", CHAT, required=True),
        Target(generation, module, cls, "invoke_text_embedding", EMBEDDINGS),
        Target(generation, module, cls, "invoke_multimodal_embedding", EMBEDDINGS),
        Target(generation, module, cls, "invoke_rerank", RERANK),
        Target(generation, module, cls, "invoke_multimodal_rerank", RERANK),
    )


TARGETS: tuple[Target, ...] = (
    Target("0.15", f"{_BASE}.large_language_model", "LargeLanguageModel", "invoke", CHAT, True, "core.plugin"),
    Target("0.15", f"{_BASE}.text_embedding_model", "TextEmbeddingModel", "invoke", EMBEDDINGS, unless="core.plugin"),
    Target("0.15", f"{_BASE}.rerank_model", "RerankModel", "invoke", RERANK, unless="core.plugin"),
    *_client("1.0", "core.plugin.manager.model", "PluginModelManager"),
    *_client("1.3.1", "core.plugin.impl.model", "PluginModelClient"),
)

MODULES: frozenset[str] = frozenset(target.module for target in TARGETS)


def targets_of(module: str) -> list[Target]:
    return [target for target in TARGETS if target.module == module]
