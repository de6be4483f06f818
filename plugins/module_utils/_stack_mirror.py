# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a host makes of C(stack_mirror) besides the addresses that the roles' defaults derive from it. Pure.

Distribution packages come through the mirror where it says that it has a cache of them: a web server with the same
folders, which is a mirror as well, has none, and apt would fail at every one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["APT_FILE", "OFFER", "SIGN", "apt_text", "lacks", "refusals"]

# Late among the files there, so that it wins over a proxy that an image of the system came with.
APT_FILE = "/etc/apt/apt.conf.d/99llmops-mirror"
# Where a mirror made by the role says what it offers, and the header by which its refusals are told from another's.
OFFER = "llmops-mirror.json"
SIGN = "X-Llmops-Mirror"


def apt_text(url: str, offer: Mapping[str, Any]) -> str:
    """apt's settings for a host of this mirror; empty where it has no cache of packages.

    Args:
        url: C(stack_mirror).
        offer: what the mirror says: C(apt_port) and C(offline), whether it serves what it has and asks nobody.
    """
    host, port = urlsplit(url).hostname or "", offer.get("apt_port")
    if not host or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        return ""
    lines = [
        "// Written by llmops.stack because of stack_mirror, and removed when that is taken out of the inventory.",
        f'Acquire::http::Proxy "http://{f"[{host}]" if ":" in host else host}:{port}";',
        # Without this line apt would take the one above for https, too, and the cache cannot look into that.
        'Acquire::https::Proxy "DIRECT";',
    ]
    if ":" not in host:  # two colons would part the setting's name
        lines.insert(2, f'Acquire::http::Proxy::{host} "DIRECT";')
    if offer.get("offline") is True:
        lines += [
            "// The mirror was filled from a bundle and asks nobody: its indices, still signed, are as old as that is.",
            'Acquire::Check-Valid-Until "false";',
        ]
    return "\n".join(lines) + "\n"


def refusals(facts: Mapping[str, Any], needed: bool = True) -> list[str]:
    """Why the mirror cannot be used, as sentences; empty where it can, or nothing is wanted from it.

    Args:
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.
        needed: whether something is to be fetched. An address that cannot be one is refused in any case.
    """
    mirror = facts.get("mirror") or {}
    return [str(mirror["error"])] if mirror.get("error") and (needed or mirror.get("wrong")) else []


def lacks(place: str, what: str) -> str:
    """The one sentence about something that a mirror does not have; empty where there is no mirror.

    Args:
        place: the mirror's address, or one below it.
        what: what it does not have, as a noun.
    """
    if not place:
        return ""
    parts = urlsplit(place)
    shown = f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else place
    return (
        f"The mirror {mask_urls(shown)} has no {what}. Run playbooks/mirror.yml, which fills it with what this "
        "inventory asks for, and then this again."
    )
