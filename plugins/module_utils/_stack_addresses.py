# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The addresses that a host's calls come from, for the firewalls of others, which know no names.

A name is resolved on the control machine. Where that says nothing of use, as with a name of a jump host's network or of
C(/etc/hosts), the host itself has said it: C(__rollout_reached) has the words of C(ip route get) or C(hostname -I).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._stack_rollout import Vars

__all__ = ["addresses", "unplaced"]


def addresses(
    hostvars: Vars, hosts: Iterable[str], gateway: str = "", left_out: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Those of each of these hosts: its C(ansible_host), or C(gateway_address) of the gateway, resolved.

    One of which nothing is known is left as it is, for the roles to refuse it in their words. One that is left out of
    the run has none then, as it is dead and the others have to go on.
    """
    without = set(left_out)
    return {
        host: _known(hostvars[host], host, gateway)
        or ([] if host in without else [_name(hostvars[host], host, gateway)])
        for host in hosts
    }


def unplaced(hostvars: Vars, hosts: Iterable[str], gateway: str = "") -> list[str]:
    """The hosts that have to be asked."""
    return [
        host
        for host in hosts
        if "__rollout_reached" not in hostvars[host] and not _known(hostvars[host], host, gateway)
    ]


def _name(seen: Mapping[str, Any], host: str, gateway: str) -> str:
    return str((seen.get("gateway_address") if host == gateway else "") or seen.get("ansible_host") or host)


def _known(seen: Mapping[str, Any], host: str, gateway: str) -> list[str]:
    return _resolved(_name(seen, host, gateway)) or _own(seen)


def _resolved(name: str) -> list[str]:
    try:
        return _of_use([str(ipaddress.ip_address(name.strip("[]")))])
    except ValueError:
        pass
    try:
        return _of_use(str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except OSError:
        return []


def _own(seen: Mapping[str, Any]) -> list[str]:
    said = str((seen.get("__rollout_reached") or {}).get("stdout") or "")
    route = re.search(r"\bsrc (\S+)", said)
    return _of_use([route.group(1)] if route else said.split())[:1]


def _of_use(found: Iterable[str]) -> list[str]:
    """Nobody's calls come to another host from a loopback or link-local address."""
    kept = set()
    for text in found:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            continue
        if not (address.is_loopback or address.is_link_local or address.is_unspecified):
            kept.add(str(address))
    return sorted(kept)
