# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure decisions about the order of a run over a fleet: no module execution, no connection."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.llmops.stack.plugins.module_utils._stack_addresses import addresses, unplaced
from ansible_collections.llmops.stack.plugins.module_utils._stack_proof import (
    announcement,
    outdated,
    proof_seconds,
    records,
    unrouted,
    verdict,
)
from ansible_collections.llmops.stack.plugins.module_utils._stack_rollout import (
    hosts_of,
    rollout,
    said,
    start,
    to_close,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "stack_addresses": addresses,
            "stack_announcement": announcement,
            "stack_hosts": hosts_of,
            "stack_outdated": outdated,
            "stack_proof_seconds": proof_seconds,
            "stack_records": records,
            "stack_rollout": rollout,
            "stack_said": said,
            "stack_start": start,
            "stack_to_close": to_close,
            "stack_unplaced": unplaced,
            "stack_unrouted": unrouted,
            "stack_verdict": verdict,
        }
