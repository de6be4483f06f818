# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A port that only some may reach: our nftables table, and the host's own firewalls, which have to let the same in.

Pure. For Ollama, which has no login, and for the gateway before it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["changes", "refusal"]

_FILES = ("firewall", "firewall_unit", "nftables_dropin")


def refusal(variable: str, entry: Any, everybody: str) -> str:
    """What is wrong with one who is to be let in; empty where nothing is.

    Args:
        variable: the name of what holds it.
        everybody: why it cannot be all addresses, and what to do; empty where it can.
    """
    text = str(entry).strip()
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return (
            f"{variable} holds {text!r}, which is no address or network; a firewall knows no names. Write something "
            "like 10.0.0.7 or 10.0.0.0/24."
        )
    if network.prefixlen == 0 and everybody:
        return f"{variable} holds {text}, which is everybody, {everybody}"
    if "/" in text and ipaddress.ip_interface(text).ip != network.network_address:
        return (
            f"{variable} holds {text}, which is an address within a network. Write {network} for the whole network "
            f"or {ipaddress.ip_interface(text).ip} for the one address."
        )
    return ""


def changes(
    loaded: Mapping[str, Any],
    wanted: bool,
    places: Mapping[str, str],
    texts: Mapping[str, str],
    there: Mapping[str, str],
    let_in: Mapping[str, Any],
    port: int | str,
) -> dict[str, Any]:
    """What has to be done for it.

    Args:
        loaded: C(firewalld) and C(ufw), whether they are active; C(table), the mark of the rules in the kernel;
            C(enabled), whether the unit is.
        wanted: whether the port is to be guarded.
        places: where C(firewall), C(firewall_unit) and C(nftables_dropin) are.
        texts: what they are to say, where it is wanted.
        there: digests of the files that are there, by their paths.
        let_in: C(addresses) and C(interfaces).
        port: the one that is guarded.
    """
    left = not wanted and any(path in there for path in places.values())
    openings = [name for name in ("ufw", "firewalld") if loaded.get(name)]
    made: dict[str, Any] = {
        "firewall": False,
        "firewall_left": left,
        "openings": bool(openings and (wanted or left)),
        "openings_in": openings,
        "ufw_rules": [],
        "firewalld_sources": [],
    }
    if not wanted:
        return made
    mark = re.search(r"chain rules_([0-9a-f]{12})\b", texts["firewall"])
    here = re.sub(r"^rules_", "", loaded["table"])
    made["firewall"] = (
        any(hashlib.sha256(texts[name].encode()).hexdigest() != there.get(places[name]) for name in _FILES)
        or not loaded["enabled"]
        or not mark
        or here != mark.group(1)
    )
    interfaces = [name.replace("*", "+") for name in let_in["interfaces"]]
    sources = [*(f"from {source}" for source in let_in["addresses"]), *(f"in on {name}" for name in interfaces)]
    made["ufw_rules"] = [f"{source} to any port {port} proto tcp" for source in sources]
    # Docker gives firewalld a zone of its own, which lets containers in.
    made["firewalld_sources"] = list(let_in["addresses"])
    return made
