# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What role gateway wants of a host, and where the host differs from it. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _guard
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_gateway as places
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse

__all__ = ["changes", "plan"]

_SETTINGS = (
    "port", "key", "max_queue", "queue_timeout", "stream_timeout", "check_interval", "stats_port", "metrics_bind",
    "metrics_port", "digests",
)  # fmt: skip
_OLLAMA = "ollama.service"
_EVERYBODY = "and there is no gateway_key. Set one, or list the networks that need it."
_DIGEST = re.compile(r"any|(?:sha256:)?[0-9a-f]{64}", re.IGNORECASE)
# With their smallest values.
_NUMBERS = {"max_queue": 0, "queue_timeout": 1, "stream_timeout": 60, "check_interval": 1}


def plan(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the whole run.

    Args:
        variables: the variables of the role by their names, and C(host), which sentences begin with.
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.

    Returns:
        C(refusals) are sentences. C(settings) is what M(llmops.stack.gateway_nodes) takes. C(guard) says who may reach
        it, as role C(llmops.stack.guard) takes it. The others are named after what they decide.
    """
    given = {name.removeprefix("gateway_"): value for name, value in variables.items()}
    let_in = {
        "addresses": list(dict.fromkeys(map(str, [*_list(given["clients"]), *_list(given["allow"])]))),
        "interfaces": _list(given["container_interfaces"]) if given["containers"] else [],
    }
    bind = _bind(str(given["bind"]), let_in)
    loopback = bind.startswith("127.") or bind == "::1"
    return {
        "given": given,
        "guard": {
            "name": "gateway",
            "what": "the gateway of Ollama",
            "services": f"{places.SERVICE} docker.service",
            "home": places.HOME,
            "let_in": let_in,
        },
        "bind": bind,
        "loopback": loopback,
        "firewall_wanted": given["firewall"] == "auto" and not loopback,
        "settings": {"bind": bind, **{name: given[name] for name in _SETTINGS}},
        "refusals": [*_wrong(given), *_taken(given, facts)],
    }


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _bind(wanted: str, let_in: Mapping[str, list[Any]]) -> str:
    if wanted != "auto":
        return wanted
    if not (let_in["addresses"] or let_in["interfaces"]):
        return "127.0.0.1"
    return "::" if any(":" in one for one in let_in["addresses"]) else "0.0.0.0"  # noqa: S104 - the firewall decides


def _wrong(given: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("clients", "allow"):
        if not isinstance(given[name], (list, tuple)):
            said.append(f"gateway_{name} is {given[name]!r}, which is no list. Write a list of addresses and networks.")
        open_to_all = "" if given["key"] and name == "allow" else _EVERYBODY
        said += [_guard.refusal(f"gateway_{name}", entry, open_to_all) for entry in _list(given[name])]
    for name, what in (("bind", "auto"), ("metrics_bind", "")):
        if str(given[name]) != what and not _is_address(str(given[name])):
            said.append(
                f"gateway_{name} is {given[name]}, which is no address. Write one of this host's, 0.0.0.0 for all of "
                f"them, or {what or 'nothing'}."
            )
    said += [_interface(str(name)) for name in _list(given["container_interfaces"])]
    if re.search(r"[^!-~]", str(given["key"])):
        said.append("gateway_key holds spaces or letters that cannot stand in a header. Write another one.")
    for name, least in _NUMBERS.items():
        if int(given[name]) < least:
            said.append(f"gateway_{name} is {given[name]}. Write {least} or more.")
    return [one for one in [*said, *_digests(given["digests"])] if one]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _interface(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,15}[*]?", name):
        return ""
    return (
        f"gateway_container_interfaces names {name}, which is no name of an interface. Write names such as docker0, "
        "with a * at the end for all that begin so."
    )


def _digests(given: Mapping[str, Any]) -> list[str]:
    said = []
    for model, digest in given.items():
        try:
            parse(str(model))
        except BadName as exc:
            said.append(f"gateway_digests: {exc}")
        if not _DIGEST.fullmatch(str(digest)):
            said.append(f"gateway_digests says {digest} for {model}. Write any, or the 64 digits of a sha256.")
    return said


def _taken(given: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    ports = {"port": int(given["port"]), "stats_port": int(given["stats_port"])}
    if given["metrics_bind"]:
        ports["metrics_port"] = int(given["metrics_port"])
    said = []
    for name, port in ports.items():
        if not 0 < port < 65536:
            said.append(f"gateway_{name} is {port}, which is no port. Write a number from 1 to 65535.")
        if list(ports.values()).count(port) > 1:
            said.append(f"gateway_{name} is {port}, and another of the gateway's ports is, too. Choose another.")
        if port in map(int, _list(given["taken_ports"])):
            said.append(_owned(name, port, {"unit": _OLLAMA}))
            continue
        owner = facts["ports"].get(str(port))
        if owner and owner["unit"] == _OLLAMA and given["taken_ports"]:
            said.append(
                f"Port {port} is still Ollama's on this host, and it is to move to {given['taken_ports'][0]}, which "
                "comes after the gateway. Take the host out of the group gateway for one run of site.yml, or give the "
                f"gateway another port (gateway_{name})."
            )
        elif owner and not (owner["unit"] == places.SERVICE or (facts["gateway"]["active"] and not owner["pid"])):
            said.append(_owned(name, port, owner))
    return said


def _owned(name: str, port: int, owner: Mapping[str, Any]) -> str:
    if owner["unit"] == _OLLAMA:
        return (
            f"Port {port} is Ollama's on this host. Give the gateway another one (gateway_{name}), or Ollama "
            "(ollama_port)."
        )
    who = f"the container {owner['container']}" if owner["container"] else owner["process"] or "a process"
    pid = f" (pid {owner['pid']})" if owner["pid"] and not owner["container"] else ""
    return f"Port {port} is taken by {who}{pid}. Stop it, or give the gateway another one (gateway_{name})."


def changes(decided: Mapping[str, Any], facts: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """What has to be done before HAProxy can be told anything.

    Args:
        decided: what C(plan) returned.
        texts: what the template makes of C(unit).
    """
    found = facts["gateway"]
    there = {path: seen["sha256"] for path, seen in found["files"].items() if seen["sha256"]}
    firewalls = facts["ollama"]["firewall"]
    loaded = {**found["firewall"], "firewalld": firewalls["firewalld"], "ufw": firewalls["ufw"]}
    made = _guard.changes(loaded, decided["firewall_wanted"], decided["guard"], decided["given"]["port"], there)
    made["packages"] = [
        *([] if found["program"] else ["haproxy"]),
        *([] if facts["python"]["requests"] else ["python3-requests"]),
        *(["nftables"] if decided["firewall_wanted"] and not facts["ollama"]["nft"] else []),
    ]
    made["unit"] = hashlib.sha256(texts["unit"].encode()).hexdigest() != there.get(places.UNIT)
    made["service"] = made["unit"] or not found["enabled"] or not found["active"] or found["reload"]
    made["there"] = sorted(there)
    return made
