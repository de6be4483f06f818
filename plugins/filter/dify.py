# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure decisions about Dify, for use in roles and playbooks: no module execution, no connection."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.llmops.stack.plugins.module_utils._dify_drift import drift
from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight import refusals
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import release_info


def dify_release_info(tag: str) -> dict[str, Any]:
    try:
        return release_info(str(tag))
    except ValueError as error:
        raise AnsibleFilterError(f"dify_version: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"dify_release_info": dify_release_info, "dify_refusals": refusals, "dify_drift": drift}
