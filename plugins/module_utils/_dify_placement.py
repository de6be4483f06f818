# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Whether the models of Ollama that Dify is to ask are on the nodes that it is to ask them at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import PROVIDER, url_of
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of

__all__ = ["unplaced"]


def unplaced(entry: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> str:
    """Half a sentence about an entry of dify_models, empty where nothing is wrong.

    An address that is none of the nodes' is somebody else's, of which nothing is known.
    """
    nodes = list(nodes)
    if str(entry.get("provider") or PROVIDER).rpartition("/")[2] != PROVIDER or entry.get("state") == "absent":
        return ""
    model, url = str(entry["model"]), url_of(entry)
    asked = [node for node in nodes if node["url"].rstrip("/") == url] if url else nodes
    if not asked or any(_holds(node, model) for node in asked):
        return ""
    elsewhere = [str(node["name"]) for node in nodes if _holds(node, model)]
    if elsewhere:
        return (
            f"{model} is not on {asked[0]['name']}, at which Dify is to ask it ({url}), but on {', '.join(elsewhere)}. "
            "Correct its base_url, or have it there, too (ollama_models)"
        )
    names = ", ".join(str(node["name"]) for node in nodes)
    return (
        f"{model} is on no node: it is not among the ollama_models of {names}. Correct its name, or have it on one of "
        "them; where another server has it, write that one's credentials.base_url"
    )


def _holds(node: Mapping[str, Any], model: str) -> bool:
    return any(key_of(str(one["name"])) == key_of(model) for one in node.get("models") or [])
