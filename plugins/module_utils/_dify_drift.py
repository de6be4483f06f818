# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Which services of Dify are not as they should be, from what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["drift"]


def drift(containers: Iterable[Mapping[str, Any]], images: Mapping[str, str]) -> list[str]:
    """Services without a container that runs the wanted image, in the order of C(images).

    Args:
        containers: C(llmops_stack.dify.containers) as M(llmops.stack.stack_facts) returns it.
        images: the wanted image of each service, as M(llmops.stack.dify_env) returns it.

    A container that ended with 0 did its work (C(init_permissions)); one stopped by hand ended with 0, too, but
    every other service of Dify is meant to run.
    """
    seen: dict[str, Mapping[str, Any]] = {str(one["service"]): one for one in containers}
    return [name for name, image in images.items() if not _as_wanted(name, seen.get(name), image)]


def _as_wanted(name: str, container: Mapping[str, Any] | None, image: str) -> bool:
    if container is None or container["image"] != image:
        return False
    if container["state"] == "running":
        return container.get("health") != "unhealthy"
    return name == "init_permissions" and container["state"] == "exited" and container.get("exit_code") == 0
