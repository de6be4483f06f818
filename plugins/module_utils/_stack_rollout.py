# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""In which order a run goes over a fleet: who can be reached, and which Ollama hosts are changed together. Pure.

Host variables are C(hostvars), in which preflights of this run have left C(__ollama_plan) and C(__ollama_changes).
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils._dify_nodes import asks_gateway
from ansible_collections.llmops.stack.plugins.module_utils._gateway_state import is_name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["Vars", "hosts_of", "listed", "rollout", "said", "start", "to_close"]

BATCHES = (1, "25%", "100%")
_NEEDED = ("mirror", "gateway")
_HINT = "Write numbers, percentages such as 25%, or lists of host names."

Vars = Mapping[str, Mapping[str, Any]]
Groups = Mapping[str, Sequence[str]]


def hosts_of(groups: Groups, *names: str, without: Iterable[str] = ()) -> list[str]:
    """The hosts of these groups, each once, in the order of the inventory. A group that is not there has none."""
    left_out = set(without)
    found = dict.fromkeys(host for name in names for host in groups.get(name) or ())
    return [host for host in found if host not in left_out]


def said(hostvars: Vars, hosts: Iterable[str], name: str) -> list[Any]:
    """The values of a variable, in the order of the hosts that have it.

    What holds for a whole run may be said to one group, and a task that is run once sees the variables of one host.
    """
    return [hostvars[host][name] for host in hosts if host in hostvars and name in hostvars[host]]


def start(
    hostvars: Vars, groups: Groups, asked: Iterable[str], batches: Any = None, skip: bool = False
) -> dict[str, Any]:
    """What is known before any host is looked at.

    Args:
        hostvars: with C(__rollout_reached), the result of a command that does nothing.
        groups: the groups of the inventory.
        asked: the hosts of this run.
        batches: C(stack_batches).
        skip: C(stack_skip_unreachable).

    Returns:
        C(refusals) and C(remarks) are sentences, C(left_out) the hosts that the run does without.
    """
    dead = {host: why for host in asked for why in [_unreached(hostvars[host].get("__rollout_reached"))] if why}
    refusals = [
        f"Group {group} has {listed(groups[group])}, and it can have one host. Choose one of them."
        for group in _NEEDED
        if len(groups.get(group) or ()) > 1
    ]
    refusals += _batch_refusals(_given(batches), hosts_of(groups, "ollama"))
    refusals += _name_refusals(groups)
    refusals += _url_refusals(hostvars, groups, asked)
    vital = [host for host in dead if any(host in (groups.get(group) or ()) for group in _NEEDED)]
    causes = " ".join(f"{host}: {why}" for host, why in dead.items())
    be = "is" if len(dead) == 1 else "are"
    if vital and skip:
        refusals.append(
            f"{listed(vital)} cannot be left out, as the other hosts get their files there or are asked through it. "
            f"{causes}"
        )
    elif dead and not skip:
        refusals.append(
            f"{listed(dead)} cannot be reached. {causes} Repair {'it' if len(dead) == 1 else 'them'}, or set "
            "stack_skip_unreachable: true, which does the rest of the fleet without."
        )
    remarks = [f"{listed(dead)} cannot be reached and {be} left out of this run. {causes}"] if dead and skip else []
    return {"refusals": refusals, "remarks": remarks, "left_out": list(dead)}


def _name_refusals(groups: Groups) -> list[str]:
    return [
        f"{host} cannot be the name of a node at a gateway, which takes letters, digits and _.- only. Give the host "
        "another name in the inventory, and what it is called now as its ansible_host."
        for host in (hosts_of(groups, "ollama") if groups.get("gateway") else ())
        if not is_name(host)
    ]


def _url_refusals(hostvars: Vars, groups: Groups, asked: Iterable[str]) -> list[str]:
    """What a gateway would make plain HTTP of, or leave away."""
    found = []
    chosen = set(asked) - set(groups.get("gateway") or ())
    for host in hosts_of(groups, "ollama") if groups.get("gateway") else ():
        said = str(hostvars[host].get("ollama_url") or "") if host in chosen else ""
        url = urlsplit(said)
        if said and (url.scheme != "http" or url.path.strip("/")):
            found.append(
                f"ollama_url of {host} is {mask_urls(said)}, and the gateway, which is who asks it, speaks plain HTTP "
                "to a host and a port. Write one such as http://10.0.0.21:11434, or leave it out for ansible_host."
            )
    return found


def _unreached(seen: Any) -> str:
    """Why a host does not run a command that does nothing; some connections call that a failed command."""
    if not isinstance(seen, Mapping) or not (seen.get("unreachable") or seen.get("rc")):
        return ""
    said = (
        str(seen.get("msg") or "") if seen.get("unreachable") else str(seen.get("stderr") or seen.get("stdout") or "")
    )
    words = " ".join(said.removeprefix("Task failed: ").split())[:300] or "it does not answer"
    return words if words.endswith(".") else f"{words}."


# -- batches ---------------------------------------------------------------------------------------------------------


def _given(batches: Any) -> list[Any]:
    if batches is None:
        return list(BATCHES)
    return list(batches) if isinstance(batches, (list, tuple)) else [batches]


def _share(entry: Any) -> tuple[int, bool] | None:
    """A number and whether it is a percentage; nothing where an entry is neither."""
    if isinstance(entry, bool):
        return None
    found = re.fullmatch(r"\s*([0-9]+)\s*(%?)\s*", str(entry))
    if not found or not int(found.group(1)):
        return None
    number, percent = int(found.group(1)), bool(found.group(2))
    return None if percent and number > 100 else (number, percent)


def _is_names(entry: Any) -> bool:
    return isinstance(entry, (list, tuple))


def _batch_refusals(batches: list[Any], hosts: list[str]) -> list[str]:
    if not batches:
        return [f"stack_batches is empty. {_HINT}"]
    found = []
    seen: dict[str, int] = {}
    for number, entry in enumerate(batches, 1):
        if not _is_names(entry):
            if not _share(entry):
                found.append(f"stack_batches has the entry {entry!r}. {_HINT}")
            continue
        if not entry:
            found.append(f"Batch {number} of stack_batches names no host. Leave it out.")
        for host in map(str, entry):
            if host not in hosts:
                found.append(f"Batch {number} of stack_batches names {host}, which is not in group ollama.")
            elif host in seen:
                again = "twice" if seen[host] == number else f"again after batch {seen[host]}"
                found.append(
                    f"Batch {number} of stack_batches names {host} {again}. A host is changed once: choose one."
                )
            seen.setdefault(host, number)
    return found


def rollout(hostvars: Vars, groups: Groups, batches: Any = None, at_once: bool = False) -> dict[str, Any]:
    """The Ollama hosts of this run in their order.

    Hosts on which nothing differs are only proved, so they come first and at once, and shares are of the others. The
    first batch that is a number has as many of each kind, hosts with a GPU and hosts without: what works on one says
    little about the other. No batch has all hosts of a model that several have, as it is taken out of service.

    Args:
        hostvars: of hosts that this run does not look at, C(__ollama_plan) is not there.
        groups: the groups of the inventory.
        batches: C(stack_batches); C(start) had nothing against it.
        at_once: whether nothing is changed at all, as in check mode.

    Returns:
        C(batches) are lists of hosts, C(hosts) are all of them and C(sizes) how many come together, as plays take it.
        C(kinds) says C(gpu) or C(cpu) of each, C(settled) names the hosts on which nothing differs, and C(alone) those
        that have to stop a server which alone has a model, with these models. C(would) are the batches of a run, where
        this one changes nothing.
    """
    hosts = [host for host in hosts_of(groups, "ollama") if hostvars[host].get("__ollama_plan")]
    kinds = {host: _kind(hostvars[host]) for host in hosts}
    wanted = {host: _wanted(hostvars[host]) for host in hosts}
    pending = [host for host in hosts if _differs(hostvars[host])]
    settled = [host for host in hosts if host not in pending]
    cut = _cut(_given(batches), pending, kinds, wanted if groups.get("gateway") else {}, set(hosts)) if pending else []
    if at_once or not pending:
        made = [hosts] if hosts else []
    else:
        named = {host for batch in cut for host in batch}
        made = [[*(host for host in settled if host not in named), *cut[0]], *cut[1:]]
    return {
        "batches": made,
        "hosts": [host for batch in made for host in batch],
        "sizes": [len(batch) for batch in made],
        "kinds": kinds,
        "settled": settled,
        "alone": _alone(hostvars, hosts_of(groups, "ollama"), pending),
        "would": cut if at_once else [],
    }


def _alone(hostvars: Vars, hosts: Sequence[str], pending: Iterable[str]) -> dict[str, list[str]]:
    stopping = [host for host in pending if _stops(hostvars[host])]
    if not stopping:
        return {}
    holders = collections.Counter(model for host in hosts for model in _served(hostvars[host]))
    found = {host: sorted(model for model in _served(hostvars[host]) if holders[model] == 1) for host in stopping}
    return {host: models for host, models in found.items() if models}


def _served(found: Mapping[str, Any]) -> set[str]:
    """The models that it can answer for now; one that is alive and not looked at in this run has them all."""
    if _unreached(found.get("__rollout_reached")):
        return set()
    plan, changes = found.get("__ollama_plan"), found.get("__ollama_changes") or {}
    if not plan:
        return _wanted(found)
    return (
        _wanted(found) - {key_of(str(name)) for name in plan.get("lacking") or ()} if changes.get("serves") else set()
    )


def _stops(found: Mapping[str, Any]) -> bool:
    """Whether there is a server, and it has to be stopped."""
    changes = found.get("__ollama_changes") or {}
    return bool(changes.get("serves") and (changes.get("restart") or changes.get("container")))


def _kind(found: Mapping[str, Any]) -> str:
    return "cpu" if found["__ollama_plan"].get("gpu") in ("", "cpu", None) else "gpu"


def _wanted(found: Mapping[str, Any]) -> set[str]:
    return {key_of(str(name)) for name in found.get("ollama_models") or ()}


def _differs(found: Mapping[str, Any]) -> bool:
    """Anything on the host, or a model that is not there; what was not compared may differ."""
    return bool(found.get("__ollama_changes", {"differs": True})["differs"] or found["__ollama_plan"].get("lacking"))


def _cut(
    batches: list[Any], pending: list[str], kinds: Mapping[str, str], wanted: Mapping[str, set[str]], known: set[str]
) -> list[list[str]]:
    by_name = {str(host) for entry in batches if _is_names(entry) for host in entry}
    left = [host for host in pending if host not in by_name]
    total, first = len(left), True
    made: list[list[str]] = []
    for entry in batches:
        if _is_names(entry):
            made.append([str(host) for host in entry if host in known])
            continue
        taken = _take(entry, left, total, kinds if first else {})
        first = first and "%" in str(entry)
        taken, carried = _leave_one(taken, wanted)
        left = [*carried, *(host for host in left if host not in taken and host not in carried)]
        made.append(taken)
    while left:
        taken, carried = _leave_one(left if _is_names(batches[-1]) else _take(batches[-1], left, total, {}), wanted)
        left = [*carried, *(host for host in left if host not in taken and host not in carried)]
        made.append(taken)
    return [batch for batch in made if batch]


def _take(entry: Any, left: list[str], total: int, kinds: Mapping[str, str]) -> list[str]:
    """The next hosts; with C(kinds), a number is one of each kind."""
    share = _share(entry)
    if not share:
        raise ValueError(f"stack_batches has the entry {entry!r}. {_HINT}")
    number, percent = share
    if percent:
        return left[: max(1, total * number // 100)]
    if not kinds:
        return left[:number]
    chosen = {host for kind in set(kinds.values()) for host in [one for one in left if kinds[one] == kind][:number]}
    return [host for host in left if host in chosen]


def _leave_one(batch: list[str], wanted: Mapping[str, set[str]]) -> tuple[list[str], list[str]]:
    """What may go together, and what waits for the next batch so that somebody serves its models until then."""
    carried: list[str] = []
    for model in sorted(set().union(*(wanted.get(host) or set() for host in batch))):
        holders = [host for host, models in wanted.items() if model in models]
        if len(holders) > 1 and set(holders) <= set(batch) - set(carried):
            carried.append([host for host in batch if host in holders][-1])
    return [host for host in batch if host not in carried], carried


def to_close(hostvars: Vars, groups: Groups) -> list[str]:
    """The Ollama hosts that let others in than their gateway, which nobody needs any more.

    There are none as long as a Dify that is told its models (C(dify_admin_email)) has not been told, in this run, to
    ask the gateway for all of them, or is not well.
    """
    nodes, gateways = hosts_of(groups, "ollama"), hosts_of(groups, "gateway")
    for host in (host for host in hosts_of(groups, "dify") if hostvars[host].get("dify_admin_email")):
        well = (hostvars[host].get("__dify_health") or {}).get("healthy")
        if not well or not asks_gateway(hostvars, nodes, host, gateways):
            return []
    return [host for host in nodes if (hostvars[host].get("__ollama_plan") or {}).get("left_open")]


def listed(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
