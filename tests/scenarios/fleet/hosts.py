"""Hosts for one test alone, and an inventory of theirs: the fleet's variables, other groups."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from fleet import WRITTEN, Fleet
from machine import ROOT

WORLD = [sys.executable, str(ROOT / "tests" / "world" / "world.py")]


def world(*words: str) -> None:
    done = subprocess.run([*WORLD, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert done.returncode == 0, done.stdout


@contextlib.contextmanager
def hosts(groups: dict[str, list[str]], **variables: Any) -> Iterator[Fleet]:
    """Bare hosts in these groups for as long as the test asks. The first of them is the mirror."""
    names = list(dict.fromkeys(name for members in groups.values() for name in members))
    inventory = ROOT / "build" / f"{names[0]}.yml"
    inventory.write_text(yaml.safe_dump(_inventory(groups, names, variables)), encoding="utf-8")
    world("down", *names)
    try:
        world("up", "--bare", "--ollama", *(f"--node={name}=trixie" for name in names))
        yield Fleet(names[0], "fleet", inventory)
    finally:
        world("down", *names)


def _inventory(groups: dict[str, list[str]], names: list[str], variables: dict[str, Any]) -> dict[str, Any]:
    kept = {
        name: value for name, value in WRITTEN["vars"].items() if not name.startswith(("scenario_nodes", "gateway_"))
    }
    return {
        "all": {
            # inventory_dir is another one here.
            "vars": {**kept, "stack_mirror": f"http://llmops-{names[0]}", "scenario_world_vars": _world(), **variables},
            "hosts": {name: {"ansible_host": f"llmops-{name}"} for name in names},
            "children": {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()},
        }
    }


def _world() -> dict[str, Any]:
    written = pathlib.Path(ROOT, "build", "world", "inventory.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(written)["all"]["vars"])
