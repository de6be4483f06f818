# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""The gateway on a host: whether it is there, what its files say, and whether it runs and is guarded."""

from __future__ import annotations

import typing as t

from ansible_collections.llmops.stack.plugins.module_utils._guard import places
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts_host import Host

HOME = "/etc/haproxy/llmops"
SERVICE = "llmops-gateway.service"
GUARD = "gateway-firewall.service"
UNITS = (SERVICE, GUARD)
UNIT = f"/etc/systemd/system/{SERVICE}"
PLACES = places("gateway", HOME)
TABLE = ("inet", "llmops_gateway")
SIGNS = (HOME, PLACES.unit)


def describe(host: Host, units: dict[str, dict[str, str]], table: str) -> dict[str, t.Any]:
    """Args: C(table): the mark of the rules that are loaded."""

    def enabled(name: str) -> bool:
        return units.get(name, {}).get("UnitFileState", "").startswith("enabled")

    def active(name: str) -> bool:
        return units.get(name, {}).get("ActiveState") == "active"

    return {
        "program": host.which("haproxy") or "",
        "files": {path: {"sha256": host.sha256(path)} for path in (UNIT, *PLACES)},
        "active": active(SERVICE),
        "enabled": enabled(SERVICE),
        "reload": units.get(SERVICE, {}).get("NeedDaemonReload") == "yes",
        "firewall": {"table": table, "enabled": enabled(GUARD)},
    }
