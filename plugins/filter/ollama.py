# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure decisions about Ollama, for use in roles and playbooks: no module execution, no connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.llmops.stack.plugins.module_utils._ollama_preflight import refusals, warnings
from ansible_collections.llmops.stack.plugins.module_utils._ollama_settings import settings
from ansible_collections.llmops.stack.plugins.module_utils._ollama_systemd import environment_lines
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import release_info


def ollama_release_info(version: str, arch: str = "amd64", overlays: Iterable[str] = ()) -> dict[str, Any]:
    try:
        return release_info(str(version), arch, overlays)
    except ValueError as error:
        raise AnsibleFilterError(f"ollama_version: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ollama_release_info": ollama_release_info,
            "ollama_settings": settings,
            "ollama_refusals": refusals,
            "ollama_warnings": warnings,
            "ollama_environment_lines": environment_lines,
        }
