#!/usr/bin/env python3
"""What users notice of an upgrade and of a changed setting, beside the official procedure (down, up) on the same pair.

A prober asks ten times a second and two chats are always under way. The images are there before, in both ways. Figures
are for comparing within one run. One of them is a promise, and not to keep it is an error: an upgrade over heads, with
its copies and its proof, is an outage of no more than BUDGET times the official one, which has neither. How much longer
it is than what nobody can spare, the migration and the api's own start, is told beside it.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scenarios"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scenarios" / "upgrade"))

import node
import requests
from traffic import Traffic

PORT = os.environ.get("BENCH_PORT", "18190")
OLD, SAME, OTHER = "1.14.1", "1.14.2", "1.15.0"
# The stand-in starts at once; Dify's own api takes 10 to 30 s on a machine that does nothing else.
START = os.environ.get("BENCH_START", "8")
BUDGET = 1.2
COMPOSE = f"docker compose --project-directory {node.HOME}/current -p dify"


def measure(what: Callable[[], Any]) -> Traffic:
    key = node.on_node(f"cat {node.HOME}/.llmops-probe.key")
    with Traffic(node.url(), key) as traffic:
        what()
    return traffic


def play(version: str, **variables: Any) -> None:
    run = node.upgrade(version, **variables)
    if run.status:
        raise SystemExit(f"bench: {run.message}\n{run.output[-3000:]}")


def official(version: str) -> None:
    """What Dify's documentation says, with everything pulled and rendered before."""
    node.on_node(f"{COMPOSE} down 2>&1; ln -sfn releases/{version} {node.HOME}/current; {COMPOSE} up -d 2>&1")
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            if node.serving() == version and requests.get(f"{node.url()}/apps", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise SystemExit(f"bench: Dify {version} did not come up in the official way")


def set_level(level: str) -> None:
    node.on_node(f"sed -i 's/^LOG_LEVEL=.*/LOG_LEVEL={level}/' {node.HOME}/current/.env")


def row(title: str, ours: Traffic, theirs: Traffic) -> None:
    ratio = f"{ours.outage / theirs.outage:8.2f}" if theirs.outage else "       -"
    print(
        f"{title:34} {ours.outage:8.1f} {len(ours.cut):6} {ours.longest:8.1f}"
        f" {theirs.outage:10.1f} {len(theirs.cut):6} {ratio}",
        flush=True,
    )


def start_of_api() -> float:
    """From the start of the api's container to its first good answer, with nothing else going on."""
    script = (
        "docker stop dify-api-1 >/dev/null; begun=$(date +%s.%N); docker start dify-api-1 >/dev/null;"
        "until docker exec dify-api-1 curl -sf http://127.0.0.1:5001/health >/dev/null 2>&1; do sleep 0.05; done;"
        "echo $begun $(date +%s.%N)"
    )
    begun, ended = node.on_node(script).split()
    return float(ended) - float(begun)


def spent() -> dict[str, float]:
    journal = json.loads(node.on_node(f"cat {node.evidence()}/journal.json"))
    return {one["id"]: float(one.get("seconds") or 0) for one in journal["steps"]}


def compare() -> None:
    play(OLD)
    node.switch("api", f"api.start=slow:{START}")
    print(f"{'':34} {'failed s':>8} {'cut':>6} {'wait s':>8} {'official s':>10} {'cut':>6} {'ratio':>8}")

    ours = measure(lambda: play(OLD, dify_env={"LOG_LEVEL": "DEBUG"}))
    set_level("INFO")
    row("a setting of every program", ours, measure(lambda: official(OLD)))

    play(OLD)
    ours = measure(lambda: play(SAME))
    official(OLD)
    row(f"same head, {OLD} -> {SAME}", ours, measure(lambda: official(SAME)))

    official(OLD)
    play(OLD)
    ours = measure(lambda: play(OTHER))
    api = start_of_api()
    steps = spent()
    back = node.roll_back(OLD)
    if back.status:
        raise SystemExit(f"bench: {back.message}")
    theirs = measure(lambda: official(OTHER))
    row(f"other head, {OLD} -> {OTHER}", ours, theirs)

    print("seconds by step:", {name: seconds for name, seconds in steps.items() if seconds >= 0.1})
    needed = steps["migrate"] + api
    parts = f"{steps['migrate']:.1f} s of migration and {api:.1f} s of start"
    print(f"{ours.outage:.1f} s of outage for {parts}: x {ours.outage / needed:.2f}")
    share = ours.outage / theirs.outage
    if share > BUDGET:
        raise SystemExit(f"bench: x {share:.2f} of the official outage, over the budget of {BUDGET}")
    print(f"x {share:.2f} of the official outage, within the budget of {BUDGET}")


def main() -> int:
    if "LLMOPS_NODE" not in os.environ:
        raise SystemExit("bench: LLMOPS_NODE names the node to measure on; it is made, or used as it is")
    there = (
        subprocess.run(["docker", "inspect", node.MACHINE.container], capture_output=True, check=False).returncode == 0
    )
    world = [sys.executable, str(node.ROOT / "tests" / "world" / "world.py")]
    tags = [part for tag in (OLD, SAME, OTHER) for part in ("--dify", tag)]
    subprocess.run([*world, "up", *tags, "--node", f"{node.MACHINE.name}=trixie:{PORT}"], check=True)
    try:
        compare()
    finally:
        if not there:
            subprocess.run([*world, "down", node.MACHINE.name], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
