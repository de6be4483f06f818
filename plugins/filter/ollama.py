# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure decisions about Ollama, for use in roles and playbooks: no module execution, no connection."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.stack.plugins.module_utils._ollama_fit import fit
from ansible_collections.llmops.stack.plugins.module_utils._ollama_fleet import asked, differing, offered
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan import plan
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan_changes import changes


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ollama_asked": asked,
            "ollama_changes": changes,
            "ollama_differing": differing,
            "ollama_fit": fit,
            "ollama_offered": offered,
            "ollama_plan": plan,
        }
