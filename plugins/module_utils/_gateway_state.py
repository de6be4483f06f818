# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What a gateway knows about its nodes, and how that changes. Pure.

A node is C({address, port, parallel, models: {name: digest}, contents: {name: content}, state: ready |
drained}), under its name. Equal contents are one model, whatever the digests are that servers give their manifests. One
whose address is a name has C(ip), too, once the name has led somewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse

__all__ = [
    "DRAINED",
    "READY",
    "StateError",
    "allowed",
    "giving_way",
    "introduced",
    "is_address",
    "is_name",
    "is_new",
    "other_digests",
    "outdated",
    "placed",
    "record",
    "with_state",
    "without",
]

READY = "ready"
DRAINED = "drained"
ANY_DIGEST = "any"

Node = dict[str, Any]
Nodes = dict[str, Node]


class StateError(ValueError):
    """What was given cannot be; the text is a sentence for an operator."""


def record(given: Mapping[str, Any]) -> Node:
    """A node as it was given, with the names of its models made the same.

    Raises:
        StateError: HAProxy could not be told so.
    """
    name, address = str(given["name"]), str(given["address"])
    if not is_name(name):
        raise StateError(f"{name!r} cannot be the name of a node at the gateway: letters, digits and _.- only.")
    if not _is_place(address):
        raise StateError(f"The address of {name}, {address!r}, is neither an IP address nor a host's name.")
    if not 0 < int(given["port"]) < 65536:
        raise StateError(f"The port of {name}, {given['port']}, is none.")
    try:
        models = {parse(str(one)).key: _bare(digest) for one, digest in given["models"].items()}
        contents = {parse(str(one)).key: str(content) for one, content in given["contents"].items()}
    except BadName as exc:
        raise StateError(f"{name}: {exc}") from exc
    return {
        "address": address,
        "port": int(given["port"]),
        "parallel": max(int(given["parallel"]), 1),
        "models": dict(sorted(models.items())),
        "contents": dict(sorted(contents.items())),
    }


def is_name(text: str) -> bool:
    """Whether HAProxy can call a node so."""
    return re.fullmatch(r"[A-Za-z0-9_.-]+", text) is not None


def _bare(digest: Any) -> str:
    return str(digest).lower().replace("sha256:", "")


def _is_place(text: str) -> bool:
    return is_address(text) or re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text) is not None


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def placed(nodes: Mapping[str, Node], before: Mapping[str, Node], found: Mapping[str, list[str]]) -> Nodes:
    """Nodes with the addresses that their names lead to.

    HAProxy looks a name up when it starts, and never again: a new address is one that it has to be told. Of several,
    and of none, the one that is in use stays.

    Args:
        before: the nodes as they were, with the addresses in use.
        found: names with their addresses; one that led nowhere has none.
    """
    made: Nodes = {}
    for name, node in nodes.items():
        address, old = node["address"], before.get(name, {})
        used = old.get("ip") if old.get("address") == address else None
        ips = found.get(address) or []
        ip = used if used in ips or not ips else ips[0]
        made[name] = {key: value for key, value in node.items() if key != "ip"}
        if ip and not is_address(address):
            made[name]["ip"] = ip
    return made


def introduced(nodes: Mapping[str, Node], records: Mapping[str, Node]) -> Nodes:
    """Nodes as they can be reached for a proof: at the new address, with nothing passed to them that was not before."""
    made: Nodes = dict(nodes)
    for name, new in records.items():
        old = nodes.get(name)
        if old is None:
            made[name] = {**new, "models": {}, "contents": {}, "state": DRAINED}
        elif (old["address"], old["port"]) == (new["address"], new["port"]):
            made[name] = {**old, "parallel": new["parallel"]}
        else:
            known = {"models": old["models"], "contents": old.get("contents", {})}
            made[name] = {**old, **new, **known, "state": DRAINED}
    return made


def is_new(nodes: Mapping[str, Node], name: str, node: Mapping[str, Any]) -> bool:
    """Whether it has a model that it was not known to have."""
    known = nodes[name]["models"] if name in nodes else {}
    return any(known.get(model) != digest for model, digest in node["models"].items())


def with_state(nodes: Mapping[str, Node], names: Iterable[str], state: str) -> Nodes:
    chosen = set(names)
    return {name: {**node, "state": state} if name in chosen else node for name, node in nodes.items()}


def without(nodes: Mapping[str, Node], names: Iterable[str]) -> Nodes:
    gone = set(names)
    return {name: node for name, node in nodes.items() if name not in gone}


def allowed(models: Mapping[str, str], digests: Mapping[str, Any]) -> dict[str, str]:
    """The models of a node that calls may be passed to, where an operator has named the one digest that they go to."""
    chosen = _chosen(digests)
    return {model: digest for model, digest in models.items() if chosen.get(model, ANY_DIGEST) in (ANY_DIGEST, digest)}


def other_digests(nodes: Mapping[str, Node], name: str, node: Mapping[str, Any], digests: Mapping[str, Any]) -> str:
    """A sentence where a node has another model under a name that calls are spread by; empty where it has not."""
    for model, digest in node["models"].items():
        for other in sorted(nodes):
            if other != name and _differs(model, node, nodes[other], digests):
                known = nodes[other]["models"][model]
                return (
                    f"{name} has another {model} than {other}: {digest[:12]}, not {known[:12]}. "
                    "Calls would be answered by one or the other. Pull the same on both, or set gateway_digests to "
                    f"the digest that is wanted, or to any: {{{model}: any}}."
                )
    return ""


def outdated(
    nodes: Mapping[str, Node], there: Iterable[str], said: Mapping[str, Iterable[Any]]
) -> dict[str, list[str]]:
    """What nodes were known to have and have no more, or not for long: as said, and all that gone nodes had.

    Raises:
        StateError: what is said names a model that can have no such name.
    """
    stay = set(there)
    try:
        given = {name: [parse(str(model)).key for model in models] for name, models in said.items()}
    except BadName as exc:
        raise StateError(f"outdated: {exc}") from exc
    return {**given, **{name: list(node["models"]) for name, node in nodes.items() if name not in stay}}


def giving_way(
    nodes: Mapping[str, Node],
    outdated: Mapping[str, Iterable[str]],
    node: Mapping[str, Any],
    digests: Mapping[str, Any],
) -> Nodes:
    """The other nodes without models that are outdated there and that this node has in another shape.

    Args:
        outdated: what the function of that name returned.
    """
    made: Nodes = dict(nodes)
    for name, models in outdated.items():
        gone = {model for model in models if name in nodes and _differs(model, node, nodes[name], digests)}
        if gone:
            kept = {model: digest for model, digest in nodes[name]["models"].items() if model not in gone}
            made[name] = {**nodes[name], "models": kept}
    return made


def _differs(model: str, one: Mapping[str, Any], other: Mapping[str, Any], digests: Mapping[str, Any]) -> bool:
    """Whether both have a model of this name, it is not the same one, and nobody has decided what to do then."""
    digest, known = one["models"].get(model), other["models"].get(model)
    if None in (digest, known) or digest == known or model in _chosen(digests):
        return False
    content = one.get("contents", {}).get(model)
    return content is None or content != other.get("contents", {}).get(model)


def _chosen(digests: Mapping[str, Any]) -> dict[str, str]:
    """Raises: StateError."""
    try:
        return {parse(str(model)).key: _bare(digest) for model, digest in digests.items()}
    except BadName as exc:
        raise StateError(f"gateway_digests: {exc}") from exc
