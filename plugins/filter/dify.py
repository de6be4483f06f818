# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure decisions about Dify, for use in roles and playbooks: no module execution, no connection."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.stack.plugins.module_utils._dify_bootstrap import bootstrap, default_plugins, failure
from ansible_collections.llmops.stack.plugins.module_utils._dify_drift import drift
from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import (
    default_models,
    model_servers,
    ollama_nodes,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight import refusals
from ansible_collections.llmops.stack.plugins.module_utils._dify_summary import summary
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_plan import in_charge, plan
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, parse_version, release_info


def dify_release_info(tag: str) -> dict[str, Any]:
    """What is no tag at all is told in C(error), for the roles to refuse: a template that fails says less."""
    try:
        return {**release_info(str(tag)), "error": ""}
    except ValueError as error:
        newest = max(HEADS, key=parse_version)
        return {**release_info(newest), "tag": str(tag), "known": False, "error": str(error)}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "dify_bootstrap": bootstrap,
            "dify_default_models": default_models,
            "dify_default_plugins": default_plugins,
            "dify_drift": drift,
            "dify_failure": failure,
            "dify_in_charge": in_charge,
            "dify_model_servers": model_servers,
            "dify_ollama_nodes": ollama_nodes,
            "dify_refusals": refusals,
            "dify_release_info": dify_release_info,
            "dify_summary": summary,
            "dify_upgrade_plan": plan,
        }
