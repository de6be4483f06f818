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

PAIRS = 100
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
    """Medians of both ways, and of the differences of calls that ran one after the other, each way first in turn."""
    found: list[tuple[float, float]] = []
    for turn in range(number):
        if turn % 2:
            found.append((direct(), through()))
        else:
            found.append((through(), direct())[::-1])
    added = sorted(late - early for early, late in found)
    return {
        "direct": statistics.median(early for early, _late in found),
        "through": statistics.median(late for _early, late in found),
        "added": statistics.median(added),
        "p99": added[int((len(added) - 1) * 0.99)],
    }


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
