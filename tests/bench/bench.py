#!/usr/bin/env python3
"""What a run that has nothing to do costs, beside the same figures of geerlingguy.docker on the same node.

Figures are for comparing within one run: print them, never assert on them.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "bench"
NODE = "dify1"
INVENTORIES = [ROOT / "build" / "world" / "inventory.yml", ROOT / "molecule" / "default" / "inventory.yml"]
ROLE = "geerlingguy.docker"
RUNS = 3
BUDGET_EXECUTIONS = 25
BUDGET_RATIO = 0.5
BUDGET_HEALTH = 2.0


def play(playbook: pathlib.Path, *options: str, **environment: str) -> dict[str, Any]:
    """One run of a playbook on the node of Molecule's default scenario."""
    return run(playbook, *(f"--inventory={path}" for path in INVENTORIES), f"--limit={NODE}", *options, **environment)


def run(playbook: pathlib.Path, *options: str, **environment: str) -> dict[str, Any]:
    """One run of a playbook: what the callback counted, and the wall clock around the whole command."""
    BUILD.mkdir(parents=True, exist_ok=True)
    result = BUILD / "result.json"
    result.unlink(missing_ok=True)
    log = BUILD / f"{playbook.stem}.log"
    started = time.monotonic()
    with log.open("ab") as out:
        subprocess.call(
            ["ansible-playbook", *options, str(playbook)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "BENCH_RESULT": str(result),
                "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
                "ANSIBLE_CALLBACKS_ENABLED": "bench_count",
                **environment,
            },
        )
    wall = time.monotonic() - started
    counted = json.loads(result.read_text()) if result.exists() else {"failed": 1}
    if counted["failed"]:
        raise SystemExit(f"bench: {playbook.name} failed; see {log.relative_to(ROOT)}")
    return counted | {"wall": wall}


def no_op(playbook: pathlib.Path, *options: str, **environment: str) -> dict[str, Any]:
    """The median of some runs after the first one that changes nothing."""
    for _attempt in range(3):
        if not play(playbook, *options, **environment)["changed"]:
            break
    else:
        raise SystemExit(f"bench: {playbook.name} changes something in every run")
    runs = sorted((play(playbook, *options, **environment) for _run in range(RUNS)), key=lambda run: run["wall"])
    return runs[RUNS // 2] | {"cpu": statistics.median(run["cpu"] for run in runs)}


def yardstick() -> dict[str, Any] | None:
    """The same figures of geerlingguy.docker, or one line why not."""
    roles = BUILD / "roles"
    given = os.environ.get("BENCH_ROLE_DIR")  # a folder that holds geerlingguy.docker, where Galaxy is out of reach
    if given:
        roles = pathlib.Path(given)
    elif not (roles / ROLE).is_dir():
        command = ["ansible-galaxy", "role", "install", "--roles-path", str(roles), ROLE]
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=90)
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            reason = ["ansible-galaxy got no answer in 90 s"]
        if not (roles / ROLE).is_dir():
            print(f"{ROLE} cannot be had here, so no ratio: {' '.join(reason)[:160]}")
            return None
    return no_op(HERE / "geerlingguy.yml", ANSIBLE_ROLES_PATH=str(roles))


def verdict(good: bool) -> str:
    return "within" if good else "over"


def main() -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    for log in BUILD.glob("*.log"):
        log.unlink()
    ours = no_op(ROOT / "site.yml")
    health = ours["action_seconds"].get("llmops.stack.dify_health", 0.0)
    print(f"{'no-op run':22} executions   wall s   controller CPU s")
    print(f"{'site.yml':22} {ours['executions']:10}   {ours['wall']:6.1f}   {ours['cpu']:16.1f}")
    role = no_op(ROOT / "site.yml", "--tags=ollama")
    print(f"{'  --tags ollama':22} {role['executions']:10}   {role['wall']:6.1f}   {role['cpu']:16.1f}")
    theirs = yardstick()
    if theirs:
        print(f"{ROLE:22} {theirs['executions']:10}   {theirs['wall']:6.1f}   {theirs['cpu']:16.1f}")
        ratio = ours["wall"] / theirs["wall"]
        print(f"wall ratio {ratio:.2f}: {verdict(ratio <= BUDGET_RATIO)} the budget of {BUDGET_RATIO}")
    print(
        f"module executions {ours['executions']}: "
        f"{verdict(ours['executions'] <= BUDGET_EXECUTIONS)} the budget of {BUDGET_EXECUTIONS}"
    )
    print(
        f"health check {health:.1f} s, Ansible's share included: {verdict(health <= BUDGET_HEALTH)} {BUDGET_HEALTH:g} s"
    )
    slowest = sorted(ours["action_seconds"].items(), key=lambda item: -item[1])[:4]
    print("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in slowest))
    print("executed: " + ", ".join(f"{name} {count}" for name, count in ours["modules"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
