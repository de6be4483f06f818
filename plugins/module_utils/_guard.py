# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""A port that only some may reach: our nftables table, and the host's own firewalls, which have to let the same in.

Pure. For Ollama, which has no login, and for the gateway before it.

A guard is a dictionary: C(name) of the unit C(NAME-firewall.service) and the table C(llmops_NAME), C(what) it is for
people, C(services) that do not start before it, C(home), the folder of its files, and C(let_in) with C(addresses) and
C(interfaces).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Places", "changes", "files", "left_open", "let_in", "places", "refusal"]

# Named, deleted and made anew in one transaction, so that it loads over whatever is there.
_RULES = string.Template("""\
# Written by Ansible. Who may reach $what. Loaded by $name-firewall.service.
table inet llmops_$name
delete table inet llmops_$name
table inet llmops_$name {
    # Says in the kernel which file these rules are from.
    chain rules_@ {
    }

    # Before the host's own rules: what is rejected here stays rejected, what is accepted here they see as well.
    chain input {
        type filter hook input priority filter - 10; policy accept;
        tcp dport $ports jump who
    }

    chain who {
        iifname "lo" accept
$accepted        reject with tcp reset
    }
}
""")
_ACCEPTED = re.compile(r'(?m)^ +(?:iifname "([^"]+)"|ip6? saddr (\S+)) accept$')
_UNIT = string.Template("""\
# Written by Ansible.
[Unit]
Description=Who may reach $what
After=nftables.service
Before=$services

[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=/bin/sh -c "exec nft -f $rules"
ExecReload=/bin/sh -c "exec nft -f $rules"
ExecStop=-/bin/sh -c "exec nft delete table inet llmops_$name"

[Install]
WantedBy=multi-user.target
""")
_DROPIN = string.Template("""\
# Written by Ansible. Whatever this service does to its own rules, it flushes those of others first; so ours come again.
[Service]
ExecStartPost=-/bin/sh -c "exec nft -f $rules"
ExecReload=-/bin/sh -c "exec nft -f $rules"
ExecStopPost=-/bin/sh -c "exec nft -f $rules"
""")


class Places(NamedTuple):
    """The files of a guard."""

    rules: str
    unit: str
    dropin: str  # of nftables.service


def places(name: str, home: str) -> Places:
    systemd = "/etc/systemd/system"
    return Places(
        f"{home}/firewall.nft", f"{systemd}/{name}-firewall.service", f"{systemd}/nftables.service.d/{name}.conf"
    )


def files(guard: Mapping[str, Any], ports: Sequence[int | str]) -> dict[str, str]:
    """What the files of a guard say, by their paths; C(ports) are those that it guards."""
    where = places(guard["name"], guard["home"])
    let_in = guard["let_in"]
    accepted = [f'iifname "{name}"' for name in let_in["interfaces"]]
    accepted += [f"{'ip6' if ':' in one else 'ip'} saddr {one}" for one in map(str, let_in["addresses"])]
    words = {
        **{key: guard[key] for key in ("name", "what", "services")},
        "rules": where.rules,
        "ports": str(ports[0]) if len(ports) == 1 else f"{{ {', '.join(map(str, ports))} }}",
        "accepted": "".join(f"        {source} accept\n" for source in accepted),
    }
    rules = _RULES.substitute(words)
    mark = hashlib.sha256(rules.encode()).hexdigest()[:12]
    return {
        where.rules: rules.replace("rules_@", f"rules_{mark}"),
        where.unit: _UNIT.substitute(words),
        where.dropin: _DROPIN.substitute(words),
    }


def let_in(rules: str) -> dict[str, list[str]]:
    """Who is let in by the rules that C(files) has made, besides the host itself; nobody where there are none."""
    found = _ACCEPTED.findall(rules)
    return {
        "addresses": [address for _interface, address in found if address],
        "interfaces": [interface for interface, _address in found if interface not in ("", "lo")],
    }


def left_open(now: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Who comes in now and would not any more, both as C(let_in) tells it."""
    return {kind: [one for one in now[kind] if one not in wanted[kind]] for kind in wanted}


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
    loaded: Mapping[str, Any], wanted: bool, guard: Mapping[str, Any], port: int | str, there: Mapping[str, str]
) -> dict[str, Any]:
    """What has to be done for it.

    Args:
        loaded: C(firewalld) and C(ufw), whether they are active; C(table), the mark of the rules in the kernel;
            C(enabled), whether the unit is.
        wanted: whether the port is to be guarded.
        port: the one that is guarded.
        there: digests of the files that are there, by their paths.

    Returns:
        C(firewall), C(firewall_left) and C(openings): whether there is something to write, to take back, and a firewall
        of the host to be told. C(openings_wanted): for each of those the rules that it is to have. C(guarded): whether
        our unit is there.
    """
    where = places(guard["name"], guard["home"])
    active = [name for name in ("ufw", "firewalld") if loaded.get(name)]
    left = not wanted and any(path in there for path in where)
    made: dict[str, Any] = {
        "firewall": False,
        "firewall_left": left,
        "openings": bool(active and (wanted or left)),
        "openings_wanted": {name: _openings(name, guard["let_in"], port) if wanted else [] for name in active},
        "guarded": where.unit in there,
    }
    if wanted:
        texts = files(guard, [port])
        made["firewall"] = (
            any(hashlib.sha256(text.encode()).hexdigest() != there.get(path) for path, text in texts.items())
            or not loaded["enabled"]
            or f"chain rules_{loaded['table']} " not in texts[where.rules]
        )
    return made


def _openings(firewall: str, let_in: Mapping[str, Any], port: int | str) -> list[str]:
    """In its own words; firewalld's are for each of its zones."""
    if firewall == "firewalld":  # Docker gives it a zone of its own, which lets containers in
        return [
            f'rule family="{"ipv6" if ":" in one else "ipv4"}" source address="{one}" port port="{port}" '
            'protocol="tcp" accept'
            for one in map(str, let_in["addresses"])
        ]
    sources = [f"from {source}" for source in let_in["addresses"]]
    sources += [f"in on {name.replace('*', '+')}" for name in let_in["interfaces"]]
    return [f"{source} to any port {port} proto tcp" for source in sources]
