#!/usr/bin/env python3
"""Runs on the gateway's host, beside load.py, and asks nodes directly and through the gateway, in turns.

fleet_child.py latency GATEWAY NODE MODEL         a model that only this node has, so both ways end at the same server
fleet_child.py throughput GATEWAY NODE,… MODEL    a model that all of these nodes have
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from load import FINISHED, Load

PAIRS = 150
FASTEST = 5
ROUNDS = 3
SECONDS = 5.0


def first(url: str, model: str) -> float:
    """Milliseconds to the first object of one stream."""
    with Load(url, model, streams=1, calls=1) as load:
        load.wait()
    (call,) = load.calls
    if call.outcome != FINISHED:
        raise SystemExit(f"fleet_child: {url} {model}: {call.outcome}, {call.trouble}")
    return call.first * 1000


def pairs(direct: Callable[[], float], through: Callable[[], float], number: int) -> dict[str, float]:
    """Both ways in turns, each first in half of them: medians, and what the gateway adds to the fastest of them.

    What else runs on the machine only ever adds to a call, and in one that it slowed the gateway's share is lost.
    """
    found: dict[str, list[float]] = {"direct": [], "through": []}
    ways = [("direct", direct), ("through", through)]
    for turn in range(number):
        for name, ask in ways if turn % 2 else ways[::-1]:
            found[name].append(ask())
    fastest = {name: statistics.mean(sorted(values)[:FASTEST]) for name, values in found.items()}
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {**medians, "added": fastest["through"] - fastest["direct"]}


def rate(urls: Sequence[str], model: str, streams: int) -> float:
    """Streams finished in a second, so many at a time, shared among the addresses."""
    loads = [Load(url, model, streams // len(urls)) for url in urls]
    began = time.monotonic()
    for load in loads:
        load.__enter__()
    time.sleep(SECONDS)
    for load in loads:
        load.stopping.set()
    for load in loads:
        load.stop()
    seconds = time.monotonic() - began
    lost = [load.total.told() for load in loads if load.total.lost]
    if lost:
        raise SystemExit(f"fleet_child: {lost[0]}")
    return sum(load.total.finished for load in loads) / seconds


def throughput(gateway: str, nodes: Sequence[str], model: str) -> dict[str, float]:
    """One stream at a time for each node, which is what Ollama answers side by side unless told otherwise."""
    found = [(rate(nodes, model, len(nodes)), rate([gateway], model, len(nodes))) for _round in range(ROUNDS)]
    direct, through = (statistics.median(way) for way in zip(*found))
    return {"streams": len(nodes), "direct": direct, "through": through, "ratio": through / direct}


def main(what: str, gateway: str, nodes: str, model: str) -> dict[str, Any]:
    addresses = nodes.split(",")
    for url in (*addresses, gateway):  # the model is in memory before anything counts
        first(url, model)
    if what == "throughput":
        return throughput(gateway, addresses, model)
    (node,) = addresses
    return pairs(lambda: first(node, model), lambda: first(gateway, model), PAIRS)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
