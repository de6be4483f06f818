#!/usr/bin/env python3
"""What a fleet costs: a run over 1, 5 and FLEET nodes, and the gateway on the way to a model.

A node here is light: a container of the world, with systemd and Python, that has nothing of Dify, no engine and no port
of this machine. All of them share this machine's kernel and page cache, get Ollama's archive from the world's upstream,
and pull models of some kB. What they do for themselves (unpack, start, load) they do on this machine's processors, so
the wall clock is theirs as well. Controller CPU is not: user and system of ansible-playbook and all that it starts.

Two figures are promises, and not to keep one ends with 1: what each further node costs the controller in a run that
finds nothing to do, and what the gateway adds to the first token. A first run is told beside it: there each node has
every step of an installation made, the first one no more of them than any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import bench
import yaml
from hook import in_most

NODES = int(os.environ.get("FLEET", "20"))
PREFIX = os.environ.get("BENCH_PREFIX", "bench-light")
GATEWAY = f"{PREFIX}-gate"
SIZES = sorted({1, min(5, NODES), NODES})
FORKS = (20, 50)
FIRST, NO_OP = "first run", "no-op"
EVERYWHERE, ALONE = "deepseek-r1:1.5b", "moving:latest"  # a model of all nodes, and one that the first node alone has
PORT = 11434
THERE = "/root"  # on the gateway's host; what is copied below a tmpfs, as /tmp is, cannot be seen
BUDGET_NODE = 0.3
BUDGET_LATENCY = 2.0  # milliseconds
WORLD = [sys.executable, str(bench.ROOT / "tests" / "world" / "world.py")]
SITE = bench.ROOT / "site.yml"


@dataclasses.dataclass
class Run:
    """One run: which it was, and what it cost."""

    kind: str
    nodes: int
    forks: int
    wall: float
    cpu: float
    executions: int

    def told(self, alone: Run) -> str:
        share = f"{further(self, alone):14.2f}" if self.nodes > 1 else ""
        cost = f"{self.wall:8.1f} {self.cpu:16.1f} {self.executions:10}"
        return f"{self.kind:10} {self.nodes:5} {self.forks:5} {cost} {share}".rstrip()


def further(run: Run, alone: Run) -> float:
    """The controller CPU of each node after the first, as a part of what the first one costs."""
    return (run.cpu - alone.cpu) / (run.nodes - 1) / alone.cpu


def over(runs: Sequence[Run]) -> list[Run]:
    """The runs over several nodes that find nothing to do and cost more than they may."""
    no_ops = [run for run in runs if run.kind == NO_OP]
    return [run for run in no_ops if run.nodes > 1 and further(run, no_ops[0]) > BUDGET_NODE]


def names(number: int) -> list[str]:
    return [f"{PREFIX}{which}" for which in range(1, number + 1)]


def inventory(number: int, variables: dict[str, Any]) -> dict[str, Any]:
    """These nodes and no others of the world, with its variables."""

    def host(name: str, **more: Any) -> dict[str, Any]:
        return {"ansible_host": f"llmops-{name}", **more}

    first, *others = names(number)
    nodes = {first: host(first, ollama_models=[EVERYWHERE, ALONE])} | {name: host(name) for name in others}
    return {
        "all": {
            "vars": {**variables, "ollama_models": [EVERYWHERE]},
            "children": {
                "ollama": {"hosts": nodes},
                "gateway": {"hosts": {GATEWAY: host(GATEWAY)}},
                "dify": {"hosts": {}},
                "mirror": {"hosts": {}},
            },
        }
    }


@contextlib.contextmanager
def fleet(number: int) -> Iterator[list[str]]:
    """Bare nodes and a bare host for the gateway; options that lead Ansible to them. Nothing of them is left."""
    made = [GATEWAY, *names(number)]
    subprocess.run([*WORLD, "down", *made], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run([*WORLD, "up", "--bare", "--ollama", *(f"--node={name}=trixie" for name in made)], check=True)
        world = yaml.safe_load(bench.INVENTORIES[0].read_text())
        written = bench.BUILD / "fleet.yml"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(yaml.safe_dump(inventory(number, world["all"]["vars"])))
        yield [f"--inventory={written}"]
    finally:
        subprocess.run([*WORLD, "down", *made], check=True, stdout=subprocess.DEVNULL)


def play(kind: str, number: int, forks: int, *options: str) -> Run:
    found = bench.run(SITE, *options, f"--forks={forks}")
    return Run(kind, number, forks, found["wall"], found["cpu"], found["executions"])


def no_op(number: int, forks: int, *options: str) -> Run:
    """A run that changes nothing, after as many as it takes until one does not."""
    for _attempt in range(3):
        found = bench.run(SITE, *options, f"--forks={forks}")
        if not found["changed"]:
            return Run(NO_OP, number, forks, found["wall"], found["cpu"], found["executions"])
    raise SystemExit("bench: site.yml changes something in every run")


def measured(number: int, *options: str) -> Iterator[Run]:
    """More forks than nodes are nothing, so only the whole fleet is run with each number of them."""
    yield play(FIRST, number, FORKS[0], *options)
    for forks in FORKS if number == NODES else FORKS[:1]:
        yield no_op(number, forks, *options)


# -- the gateway


def child(*arguments: str) -> Any:
    """Asks on the gateway's host: it may ask both the gateway and the nodes."""
    command = ["docker", "exec", f"llmops-{GATEWAY}", "python3", f"{THERE}/fleet_child.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {done.stderr or done.stdout}")
    return json.loads(done.stdout)


def url(name: str) -> str:
    return f"http://llmops-{name}:{PORT}"


def latency() -> bool:
    found = child("latency", url(GATEWAY), url(names(1)[0]), ALONE)
    print(
        f"first token, ms: direct {found['direct']:.1f}, through the gateway {found['through']:.1f} (medians), "
        f"added to the fastest of them {found['added']:.2f}",
        flush=True,
    )
    return found["added"] <= BUDGET_LATENCY


def gateway(number: int) -> bool:
    for file in (bench.HERE / "fleet_child.py", bench.ROOT / "tests" / "scenarios" / "fleet" / "load.py"):
        subprocess.run(
            ["docker", "cp", str(file), f"llmops-{GATEWAY}:{THERE}/{file.name}"], check=True, capture_output=True
        )
    good = in_most(latency)
    print(f"added to the first token: {bench.verdict(good)} the budget of {BUDGET_LATENCY:g} ms")
    nodes = names(min(number, 8))  # more would measure nothing but this machine's processors
    found = child("throughput", url(GATEWAY), ",".join(map(url, nodes)), EVERYWHERE)
    print(
        f"streams in a second, {found['streams']} at a time: direct {found['direct']:.1f}, "
        f"through the gateway {found['through']:.1f}, ratio {found['ratio']:.2f}"
    )
    return good


def main() -> int:
    (bench.BUILD / f"{SITE.stem}.log").unlink(missing_ok=True)
    runs: list[Run] = []
    good = True
    print(f"{'':10} nodes forks   wall s   controller CPU s executions   each further")
    for number in SIZES:
        with fleet(number) as options:
            for run in measured(number, *options):
                runs.append(run)
                print(run.told(next(one for one in runs if one.kind == run.kind)), flush=True)
            if number == NODES:
                good = gateway(number)
    expensive = over(runs)
    print(f"each further node of a no-op: {bench.verdict(not expensive)} the budget of {BUDGET_NODE} of the first one")
    return int(bool(expensive) or not good)


if __name__ == "__main__":
    sys.exit(main())
