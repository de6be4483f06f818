"""A run that dies in any phase of an upgrade: the next one finishes it or takes it back, and nothing is lost."""

from __future__ import annotations

import pathlib
import subprocess
import time

import node
import pytest
import seed as seeds
from node import HOME
from state import State

OLD, NEW = "1.10.1", "1.12.1"
# Steps of the machine, as its journal names them.
STEPS = ("backup", "maintenance", "stop", "copy_databases", "migrate", "start", "prove", "forget_copies")


class Killer:
    """Kills the process on the node that carries out the upgrade, once it has begun a step."""

    def __init__(self, step: str) -> None:
        program = (pathlib.Path(__file__).parent / "killer.py").read_text(encoding="utf-8")
        command = ["docker", "exec", "-i", node.MACHINE.container, "python3", "-c", program, HOME, step, "900"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def done(self) -> bool:
        try:
            return self.process.wait(5) == 0
        except subprocess.TimeoutExpired:
            return False


def goes_on(before: State, seed: seeds.Seed, step: str) -> None:
    """The upgrade is killed in a step; site.yml again, and it is done."""
    killer = Killer(step)
    first = node.upgrade(NEW)
    assert killer.done(), f"nobody was killed in {step}: {first.output[-3000:]}"
    assert first.status != 0, first.output[-3000:]
    again = node.upgrade(NEW)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    before.is_kept()
    seeds.grown(seed, NEW)
    third = node.upgrade(NEW)
    assert (third.status, third.changed) == (0, 0), third.output[-4000:]


@pytest.mark.short
@pytest.mark.at("1.0.0", last=True)
def test_killed_while_it_migrates(seed: seeds.Seed) -> None:
    goes_on(State.now(), seed, "migrate")


@pytest.mark.long
@pytest.mark.at(OLD)
@pytest.mark.parametrize("step", STEPS)
def test_the_next_run_goes_on(back: State, seed: seeds.Seed, step: str) -> None:
    goes_on(back, seed, step)


@pytest.mark.long
@pytest.mark.at(OLD)
def test_the_next_run_takes_it_back_where_the_old_release_is_asked_for(back: State, seed: seeds.Seed) -> None:
    killer = Killer("migrate")
    node.upgrade(NEW)
    assert killer.done()
    again = node.upgrade(OLD)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    back.is_back(seed)


@pytest.mark.long
@pytest.mark.at(OLD)
def test_a_control_machine_that_dies_leaves_an_upgrade_that_goes_on(back: State, seed: seeds.Seed) -> None:
    """What runs on the node does not need whoever started it."""
    node.MACHINE.kill_when("Upgrade", delay=5, dify_version=NEW)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and node.current() != NEW:
        time.sleep(2)
    again = node.upgrade(NEW)
    assert again.status == 0, f"{again.message}\n{again.output[-4000:]}"
    back.is_kept()
    seeds.grown(seed, NEW)
