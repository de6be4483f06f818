# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a guarded port: no module execution, no connection."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.stack.plugins.module_utils._guard import files


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"guard_files": files}
