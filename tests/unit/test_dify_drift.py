# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_drift import drift

IMAGES = {"init_permissions": "busybox:latest", "api": "langgenius/dify-api:1.12.1", "redis": "redis:6-alpine"}


def containers(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    seen = {
        name: {"service": name, "image": image, "state": "running", "health": "", "exit_code": 0}
        for name, image in IMAGES.items()
    }
    seen["init_permissions"]["state"] = "exited"
    for name, change in changes.items():
        seen[name].update(change)
    return list(seen.values())


def test_nothing_to_do() -> None:
    assert drift(containers(), IMAGES) == []


def test_an_empty_host_needs_everything() -> None:
    assert drift([], IMAGES) == list(IMAGES)


@pytest.mark.parametrize(
    ("service", "change"),
    [
        ("api", {"image": "langgenius/dify-api:1.11.4"}),
        ("api", {"state": "exited", "exit_code": 1}),
        ("redis", {"state": "exited"}),
        ("redis", {"state": "created"}),
        ("redis", {"health": "unhealthy"}),
        ("init_permissions", {"exit_code": 1}),
    ],
)
def test_what_is_off(service: str, change: dict[str, Any]) -> None:
    assert drift(containers(**{service: change}), IMAGES) == [service]
