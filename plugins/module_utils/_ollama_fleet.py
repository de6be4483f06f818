# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What concerns all Ollama hosts of a run: who is asked for what they lack, whether a name means one model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of, parse

__all__ = ["asked", "contents", "differing", "offered"]

# What role ollama registers and sets on every host.
_PLAN, _OFFERS, _BUNDLED = "__ollama_plan", "__ollama_offers", "__ollama_bundled"

Hostvars = Mapping[str, Mapping[str, Any]]


def asked(hostvars: Hostvars, hosts: Iterable[str]) -> list[dict[str, Any]]:
    """For each source of models C(registry), C(insecure), C(no_proxy), C(names) that hosts lack, and these C(hosts).

    The first of them is to ask, with its proxy: what one host reaches, the others with the same settings do, too.
    """
    sources: dict[tuple[str, ...], dict[str, Any]] = {}
    for host in hosts:
        plan = hostvars[host].get(_PLAN)
        if not plan or not plan["lacking"] or plan["given"].get("bundle") or plan["given"].get("fit") == "ignore":
            continue
        proxy = str(plan["given"].get("https_proxy") or "")
        key = (str(plan["registry"]), str(plan["registry_insecure"]), proxy, str(plan["no_proxy"]))
        source = sources.setdefault(
            key,
            {
                "registry": plan["registry"],
                "insecure": plan["registry_insecure"],
                "no_proxy": plan["no_proxy"],
                "names": {},
                "hosts": [],
            },
        )
        source["hosts"].append(host)
        source["names"].update({key_of(name): name for name in plan["lacking"]})
    return [{**one, "names": list(one["names"].values())} for one in sources.values()]


def offered(hostvars: Hostvars, host: str) -> list[Mapping[str, Any]]:
    """What the source of a host, its bundle or its registry, was seen to have."""
    found = hostvars[host]
    results = list((found.get(_OFFERS) or {}).get("results") or [])
    models = [model for one in results if host in one["item"]["hosts"] for model in one.get("models") or []]
    return models + list((found.get(_BUNDLED) or {}).get("models") or [])


def contents(hostvars: Hostvars, host: str, models: Mapping[str, str]) -> dict[str, str]:
    """What these models of a host are, by their names, as far as this run has seen it.

    A server writes manifests in its own way, so that digests of one model may differ.

    Args:
        models: names with the digests that the host has now.
    """
    there, offers = _there(hostvars, host), _offers(hostvars, host)
    found = {}
    for name, digest in models.items():
        seen = there.get(key_of(name)) or offers.get(key_of(name)) or {}
        # One that had to be mended may be another now.
        if seen.get("content") and (key_of(name) not in there or seen["digest"] == digest):
            found[name] = str(seen["content"])
    return found


class _Seen(NamedTuple):
    host: str
    digest: str
    there: bool


def differing(hostvars: Hostvars, hosts: Iterable[str], allowed: Mapping[str, Any]) -> list[str]:
    """A sentence for each name under which hosts have, or would get, different models.

    Args:
        hostvars: of the run.
        hosts: the Ollama hosts in it; what others have is not known.
        allowed: gateway_digests, the names for which somebody has decided what to do.
    """
    decided = {key_of(str(name)) for name in allowed}
    models: dict[str, dict[str, list[_Seen]]] = {}
    shown: dict[str, str] = {}
    for host in hosts:
        for name, content, seen in _on(hostvars, host):
            shown.setdefault(key_of(name), parse(name).short)
            models.setdefault(key_of(name), {}).setdefault(content, []).append(seen)
    return [
        _sentence(shown[key], list(contents.values()))
        for key, contents in models.items()
        if len(contents) > 1 and key not in decided
    ]


def _on(hostvars: Hostvars, host: str) -> Iterable[tuple[str, str, _Seen]]:
    """Models that a host is to have, as far as is known which ones they are."""
    plan = hostvars[host].get(_PLAN)
    if not plan:
        return
    there, offers = _there(hostvars, host), _offers(hostvars, host)
    for name in plan["given"]["models"]:
        key = key_of(str(name))
        seen = there.get(key) or offers.get(key) or {}
        if seen.get("content"):
            yield str(name), str(seen["content"]), _Seen(host, str(seen["digest"]), key in there)


def _there(hostvars: Hostvars, host: str) -> dict[str, Mapping[str, Any]]:
    facts = (hostvars[host].get("ansible_facts") or {}).get("llmops_stack")
    models = facts["ollama"]["store"]["models"] if facts else {}
    return {key_of(name): seen for name, seen in models.items() if seen["whole"]}


def _offers(hostvars: Hostvars, host: str) -> dict[str, Mapping[str, Any]]:
    return {key_of(str(one["name"])): one for one in offered(hostvars, host)}


def _sentence(name: str, groups: list[list[_Seen]]) -> str:
    each = [f"{group[0].digest[:12]} {_places(group)}" for group in groups]
    return (
        f"{name} is not one model: {', '.join(each)}; callers of the gateway would get one or another. Have one "
        "everywhere (delete the older one there, with ollama_model and state: absent, and run again), or say in "
        f"gateway_digests what may answer: {{'{name}': any}}, or the one digest."
    )


def _places(group: list[_Seen]) -> str:
    there = [one.host for one in group if one.there]
    coming = [one.host for one in group if not one.there]
    parts = [f"is on {_and(there)}"] if there else []
    return " and ".join([*parts, *([f"would be pulled on {_and(coming)}"] if coming else [])])


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
