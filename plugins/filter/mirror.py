# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror has to hold, out of an inventory: no module execution, no connection."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import yaml
from ansible_collections.llmops.stack.plugins.module_utils._mirror_needs import needs

_ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"


@functools.lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    """Those of all roles: variables of a host do not tell what nobody has set."""
    found: dict[str, Any] = {}
    for path in sorted(_ROLES.glob("*/defaults/main.yml")):
        found.update(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return found


def mirror_needs(
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Mapping[str, Iterable[str]],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return needs(hostvars, hosts, {"defaults": _defaults(), **(settings or {})})


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mirror_needs": mirror_needs}
