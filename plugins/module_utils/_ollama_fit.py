# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Whether models can run on a host, before anything of them is downloaded or settings make them too large. Pure.

Each model is judged alone: a server unloads one to make room for another. What it needs is compared with what the host
has in all, not with what is free at the moment. An operator who names the kind of card with C(ollama_gpu) wants models
on the card, so they have to fit there; with C(auto) a server may keep a part of a model in the host's memory, which is
slow and said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils._ollama_memory import (
    GIB,
    cache,
    default_context,
    describe,
)
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import key_of

__all__ = ["fit", "fit_present"]

_MIB = 1024**2
_ANYWAY = "ollama_fit: warn takes it as it is."


class Room(NamedTuple):
    """What a host has for models. No number where that is not known."""

    ram: int
    vram: int | None  # of the cards that the server may use
    cards: int
    on_card: bool  # whether models have to be on them as a whole


def fit(plan: Mapping[str, Any], facts: Mapping[str, Any], offers: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What speaks against the models that a host lacks.

    Args:
        plan: of the filter ollama_plan.
        facts: C(llmops_stack) as M(llmops.stack.stack_facts) returns it.
        offers: C(models) that M(llmops.stack.ollama_manifest) returned, for this host and others.

    Returns:
        C(refusals) and C(warnings) are sentences, C(models) has what each takes.
    """
    given = plan["given"]
    known = {key_of(str(one["name"])): one for one in offers}
    wanted = [known[key_of(name)] for name in plan["lacking"] if key_of(name) in known]
    room = _room(given, facts, str(plan["gpu"]))
    absent: list[str] = []
    unfit: list[str] = []
    warnings: list[str] = []
    models = []
    for offer in wanted:
        if offer.get("error"):
            into, end = (absent, "") if offer.get("missing") else (warnings, " Whether it fits was not looked at.")
            into.append(f"{offer['name']}: {offer['error']}{end}")
            continue
        needs = _needs(offer, plan, room)
        models.append(needs)
        refused, warned = _judge(needs, room)
        unfit += refused
        warnings += warned
    unfit += _disk([one for one in wanted if not one.get("error")], facts)
    # What its source does not have is no question of room.
    refusals, said = (absent, unfit) if given.get("fit") == "warn" else (absent + unfit, [])
    return {"refusals": refusals, "warnings": said + warnings, "models": models}


def fit_present(plan: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """What speaks against models that are there, with the context that is wanted now; C(refusals) and C(warnings)."""
    mode = plan["given"].get("fit")
    there = {key_of(name): (name, seen) for name, seen in facts["ollama"]["store"]["models"].items() if seen["whole"]}
    room = _room(plan["given"], facts, str(plan["gpu"]))
    refusals: list[str] = []
    warnings: list[str] = []
    for wanted in plan["given"]["models"] if mode in ("refuse", "warn") else []:
        if key_of(str(wanted)) in there:
            name, seen = there[key_of(str(wanted))]
            refused, warned = _judge(_needs({**seen, "name": name}, plan, room), room)
            (refusals if mode == "refuse" else warnings).extend(refused)
            warnings += warned
    return {"refusals": refusals, "warnings": warnings}


# -- what there is -----------------------------------------------------------------------------------------------------


def _room(given: Mapping[str, Any], facts: Mapping[str, Any], gpu: str) -> Room:
    ram = int(facts["memory"]["total_mb"]) * _MIB
    if gpu == "cpu":
        return Room(ram, 0, 0, False)
    cards = [one for one in facts.get("gpus") or [] if one.get("vendor") == gpu and one.get("driver")]
    cards = _visible(cards, given.get("visible_devices"))
    on_card = given.get("gpu") == gpu
    # A Jetson and its like have one memory for both, and a driver that does not answer tells nothing.
    if not cards or any(not one.get("memory_mb") for one in cards):
        return Room(ram, None, len(cards), on_card)
    overhead = int(given.get("gpu_overhead") or 0) * len(cards)
    return Room(ram, max(0, sum(int(one["memory_mb"]) for one in cards) * _MIB - overhead), len(cards), on_card)


def _visible(cards: list[Mapping[str, Any]], devices: Any) -> list[Mapping[str, Any]]:
    """Those that ollama_visible_devices leaves. By number they may be in another order for the driver: the largest."""
    wanted = [str(one).strip() for one in (devices if isinstance(devices, list) else str(devices or "").split(","))]
    wanted = [one for one in wanted if one]
    if not wanted:
        return cards
    named = [card for card in cards if any(str(card.get("uuid", "")).startswith(one) for one in wanted)]
    others = sorted((one for one in cards if one not in named), key=lambda one: -int(one.get("memory_mb") or 0))
    return named + others[: sum(one.isdigit() for one in wanted)]


# -- what a model takes ------------------------------------------------------------------------------------------------


def _needs(offer: Mapping[str, Any], plan: Mapping[str, Any], room: Room) -> dict[str, Any]:
    given, shape = plan["given"], offer.get("shape") or {}
    context = int(plan["env"].get("OLLAMA_CONTEXT_LENGTH") or 0)
    chosen = "ollama_context_length"
    if offer.get("num_ctx"):
        tokens, chosen = int(offer["num_ctx"]), "the model's own num_ctx"
    elif context:
        tokens = context
    else:
        tokens, chosen = default_context(str(given["version"]), room.vram or 0), "what Ollama chooses here"
    longest = int(shape.get("context_length") or 0)
    if longest and longest < tokens:
        tokens, chosen = longest, "the longest that it knows"
    # One that only embeds answers one request at a time.
    parallel = 1 if "pooling_type" in shape else int(plan["env"].get("OLLAMA_NUM_PARALLEL") or 0) or 1
    kind = str(plan["env"].get("OLLAMA_KV_CACHE_TYPE") or "f16")
    taken = cache(shape, tokens, parallel, kind)
    return {
        "name": str(offer["name"]),
        "weights": int(offer["weights"]),
        "context": tokens,
        "context_from": chosen,
        "parallel": parallel,
        "cache_type": kind,
        "cache": {"least": taken.least, "most": taken.most},
        "least": int(offer["weights"]) + taken.least,
        "most": int(offer["weights"]) + taken.most,
        "shape": describe(shape),
    }


def _judge(needs: Mapping[str, Any], room: Room) -> tuple[list[str], list[str]]:
    least, most = int(needs["least"]), int(needs["most"])
    if room.vram is None:
        limit, has = room.ram, f"the host has {_gib(room.ram)} of memory (what its GPU has is not known)"
    elif not room.cards:
        limit, has = room.ram, f"the host has {_gib(room.ram)} of memory and computes on its CPU"
    else:
        cards = "the GPU has" if room.cards == 1 else f"the {room.cards} GPUs have"
        limit, has = room.vram, f"{cards} {_gib(room.vram)}"
        if not room.on_card:
            limit, has = room.vram + room.ram, f"{has} and the host {_gib(room.ram)} besides"
    if least > limit:
        return [f"{_takes(needs)}, and {has}. {_advice(needs, room)} {_ANYWAY}"], []
    if room.cards and room.vram is not None and least > room.vram:
        return [], [
            f"{_takes(needs)}, and {has}: a part of it is computed on the CPU, which is slow. {_advice(needs, room)}"
        ]
    if most > limit:
        return [], [f"{_takes(needs)}, and {has}: it may not fit. {_advice(needs, room)}"]
    return [], []


def _takes(needs: Mapping[str, Any]) -> str:
    low, high = needs["cache"]["least"], needs["cache"]["most"]
    text = f"{needs['name']} takes {_gib(needs['weights'])} for its weights"
    if not high:
        return f"{text} alone" if not needs["shape"] else text
    size = _gib(high) if low == high else f"{_gib(low)} to {_gib(high)}"
    times = f" times {needs['parallel']} at a time" if needs["parallel"] > 1 else ""
    total = _gib(needs["most"]) if low == high else f"at least {_gib(needs['least'])}"
    return (
        f"{text} and {size} for a context of {needs['context']} tokens ({needs['context_from']}){times} "
        f"({needs['shape']}, {needs['cache_type']}), {total} in all"
    )


def _advice(needs: Mapping[str, Any], room: Room) -> str:
    """What would help, the cheapest first; only where it is the context that is too much does a shorter one help."""
    ways = []
    limit = room.vram if room.cards and room.vram is not None else room.ram
    if needs["cache"]["least"] and needs["weights"] < limit:
        ways.append("a shorter ollama_context_length")
        if needs["parallel"] > 1:
            ways.append("a lower ollama_num_parallel")
        if needs["cache_type"] in ("f16", "f32", "bf16"):
            ways.append("ollama_kv_cache_type: q8_0")
    ways.append("a smaller model or tag")
    if room.cards and room.on_card:
        ways.append("ollama_gpu: auto, which lets a part of it run on the CPU")
    return (
        f"Take {', '.join(ways[:-1])} or {ways[-1]}, or have it on another host."
        if len(ways) > 1
        else (f"Take {ways[0]}, or have it on another host.")
    )


# -- the disk ----------------------------------------------------------------------------------------------------------


def _disk(offers: list[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[str]:
    """All that is to be fetched lies side by side. What is there of it, whole or in part, is not fetched."""
    path, store = str(facts["ollama"]["models_dir"]["path"]), facts["ollama"]["store"]
    there = set(store["blobs"])
    layers = {one["digest"]: int(one["size"]) for offer in offers for one in offer.get("layers") or []}
    missing = sum(max(0, size - int(store["partial"].get(sha, 0))) for sha, size in layers.items() if sha not in there)
    disk = facts.get("disks", {}).get(path) or {}
    free = int(disk.get("free_mb") or 0) * _MIB
    if not disk or missing <= free:
        return []
    names = [str(one["name"]) for one in offers]
    what = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return [
        f"{what} would fetch {_gib(missing)}, and {path} (on {disk.get('mount', '/')}) has {_gib(free)} free. Make "
        "room, or put the store on a larger disk (ollama_models_dir)."
    ]


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / _MIB:.1f} MiB"
